//! Documents one after another, none cut that fits into a row.

use super::index::RowIndex;

/// The rows of documents given as (number, tokens), none without tokens.
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
