//! One row.

use super::IGNORE_INDEX;
use super::index::Piece;
use crate::Result;
use crate::token_source::TokenSource;

/// One row of tokens and the attention documents in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRow {
    ids: Vec<u32>,
    /// Ascending, from 0 to the number of tokens; padding is the last document.
    cu_seqlens: Vec<usize>,
    /// Tokens before the padding.
    valid: usize,
    /// The token after the row, if the last document continues in another row.
    continuation: Option<u32>,
}

impl PackedRow {
    /// Reads the tokens of a row and pads it.
    pub(super) fn read(
        source: &TokenSource,
        pieces: &[Piece],
        sequence_length: usize,
    ) -> Result<Self> {
        let mut ids = Vec::with_capacity(sequence_length + 1);
        let mut cu_seqlens = Vec::with_capacity(pieces.len() + 2);
        cu_seqlens.push(0);
        let mut continuation = None;
        for &Piece { document, offset } in pieces {
            let (offset, length) = (offset as usize, source.document_tokens(document));
            let end = length.min(offset + sequence_length - ids.len());
            if end < length {
                // Only the last piece of a full row can be cut.
                source.read(document, offset..end + 1, &mut ids)?;
                continuation = ids.pop();
            } else {
                source.read(document, offset..end, &mut ids)?;
            }
            cu_seqlens.push(ids.len());
        }
        let valid = ids.len();
        if valid < sequence_length {
            ids.resize(sequence_length, source.eos());
            cu_seqlens.push(sequence_length);
        }
        Ok(Self { ids, cu_seqlens, valid, continuation })
    }

    /// The token ids; padding has the end-of-document id.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The borders of the attention documents: `[0, len_0, len_0 + len_1, ..]`.
    pub fn cu_seqlens(&self) -> &[usize] {
        &self.cu_seqlens
    }

    /// Number of tokens before the padding.
    pub fn valid_tokens(&self) -> usize {
        self.valid
    }

    /// The target of every token: the token that follows it in its original document, or
    /// [`IGNORE_INDEX`].
    pub fn labels(&self) -> impl Iterator<Item = i32> + '_ {
        let mut ends = self.cu_seqlens[1..].iter().copied().peekable();
        (1..=self.ids.len()).map(move |next| match ends.next_if_eq(&next) {
            Some(end) if end == self.ids.len() => self.continuation.map_or(IGNORE_INDEX, label),
            None if next < self.valid => label(self.ids[next]),
            _ => IGNORE_INDEX,
        })
    }
}

fn label(id: u32) -> i32 {
    debug_assert!(i32::try_from(id).is_ok(), "token ids are below 2^31");
    id.cast_signed()
}
