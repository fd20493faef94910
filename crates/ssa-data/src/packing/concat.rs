//! Concatenation: documents in order, split at row boundaries.

use super::index::RowIndex;

/// Packs documents given as (number, tokens); the last row may be partial.
pub(super) fn rows(
    documents: impl Iterator<Item = (u32, usize)>,
    sequence_length: usize,
    count: usize,
    tokens: u64,
) -> RowIndex {
    // Each piece of a document except the first begins a row.
    let rows = tokens.div_ceil(sequence_length as u64) as usize;
    let mut index = RowIndex::with_capacity(count + rows, rows);
    let mut filled = 0;
    for (document, length) in documents {
        let mut offset = 0;
        while offset < length {
            let taken = (length - offset).min(sequence_length - filled);
            index.push(document, offset);
            offset += taken;
            filled += taken;
            if filled == sequence_length {
                index.end_row();
                filled = 0;
            }
        }
    }
    if filled > 0 {
        index.end_row();
    }
    index
}
