//! Greedy packing: documents in order, without splitting documents that fit into a row.

use super::index::RowIndex;

/// Packs documents given as (number, tokens), with at least one token each.
pub(super) fn rows(
    documents: impl Iterator<Item = (u32, usize)>,
    sequence_length: usize,
) -> RowIndex {
    let mut index = RowIndex::default();
    let mut filled = 0;
    for (document, length) in documents {
        if filled > 0 && filled + length > sequence_length {
            index.end_row();
            filled = 0;
        }
        let mut offset = 0;
        while length - offset > sequence_length {
            index.push(document, offset);
            index.end_row();
            offset += sequence_length;
        }
        index.push(document, offset);
        filled += length - offset;
    }
    if filled > 0 {
        index.end_row();
    }
    index
}
