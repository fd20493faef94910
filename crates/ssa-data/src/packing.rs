//! Packing documents of any length into rows of one length.

use rand::seq::SliceRandom;

use crate::random::{Purpose, generator};
use crate::{DataError, Result};

/// The label of a token that has no target; the cross-entropy leaves it out.
pub const IGNORE_INDEX: i32 = -100;

/// What becomes of the last, partial row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remainder {
    /// It is left out: for training, where every row should be whole.
    Drop,
    /// It is filled up with padding: for evaluation, where every token should count.
    Pad,
}

/// How to pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackOptions {
    /// Tokens of a row, at least 2.
    pub sequence_length: usize,
    /// Seed of the order of documents.
    pub seed: u64,
    /// What becomes of the last, partial row.
    pub remainder: Remainder,
}

/// One row of tokens and the attention documents in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRow {
    ids: Vec<u32>,
    /// Ascending, from 0 to the number of tokens; padding is the last document.
    cu_seqlens: Vec<usize>,
    /// Tokens before the padding.
    valid: usize,
    /// The token that follows the row, if the row's last document goes on in the next row.
    continuation: Option<u32>,
}

impl PackedRow {
    fn with_capacity(tokens: usize) -> Self {
        Self { ids: Vec::with_capacity(tokens), cu_seqlens: vec![0], valid: 0, continuation: None }
    }

    /// The token ids; padding holds the end-of-document id.
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

    /// The target of every token: the token that follows it in its original document, or [`IGNORE_INDEX`].
    pub fn labels(&self) -> impl Iterator<Item = i32> + '_ {
        let mut ends = self.cu_seqlens[1..].iter().copied().peekable();
        (1..=self.ids.len()).map(move |next| match ends.next_if_eq(&next) {
            Some(end) if end == self.ids.len() => self.continuation.map_or(IGNORE_INDEX, label),
            None if next < self.valid => label(self.ids[next]),
            _ => IGNORE_INDEX,
        })
    }

    fn push_document(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
        self.cu_seqlens.push(self.ids.len());
    }
}

fn label(id: u32) -> i32 {
    debug_assert!(i32::try_from(id).is_ok(), "token ids are below 2^31");
    id.cast_signed()
}

/// Rows of equal length: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRows {
    rows: Vec<PackedRow>,
    sequence_length: usize,
    dropped_tokens: usize,
}

impl PackedRows {
    /// The rows, in the order of the token stream.
    pub fn rows(&self) -> &[PackedRow] {
        &self.rows
    }

    /// Tokens of a row.
    pub fn sequence_length(&self) -> usize {
        self.sequence_length
    }

    /// Tokens of the corpus that are in no row: the partial row left out by [`Remainder::Drop`].
    pub fn dropped_tokens(&self) -> usize {
        self.dropped_tokens
    }

    /// Tokens that are not padding.
    pub fn valid_tokens(&self) -> usize {
        self.rows.iter().map(PackedRow::valid_tokens).sum()
    }

    /// The share of the rows' tokens that are not padding, in (0, 1].
    pub fn utilisation(&self) -> f64 {
        self.valid_tokens() as f64 / (self.rows.len() * self.sequence_length) as f64
    }
}

/// Packs documents by concatenation.
///
/// The documents are put in a seeded random order, each is ended by `eos`, and the stream of tokens so made
/// is cut into rows of `sequence_length`. A document cut at the end of a row goes on at the start of the next
/// row as an attention document of its own: it cannot see what lies before the cut, but the last token before
/// the cut still has the first one after it as its target. Every token of a document but its first is thus a
/// target exactly once, and nothing is predicted across documents. Documents without tokens are left out.
///
/// `documents` holds the token ids of each document, below 2^31 and without `eos`.
///
/// # Errors
/// [`DataError::Setting`] if `sequence_length` is below 2 (a row of one token may have no target at all),
/// [`DataError::NoText`] if there is no token, and [`DataError::ShorterThanOneRow`] if [`Remainder::Drop`]
/// would leave no row.
pub fn pack(documents: &[Vec<u32>], eos: u32, options: &PackOptions) -> Result<PackedRows> {
    let PackOptions { sequence_length, seed, remainder } = *options;
    if sequence_length < 2 {
        return Err(DataError::setting("sequence_length", "at least 2", sequence_length));
    }
    let mut order: Vec<&Vec<u32>> = documents.iter().filter(|ids| !ids.is_empty()).collect();
    let tokens: usize = order.iter().map(|ids| ids.len() + 1).sum();
    if tokens == 0 {
        return Err(DataError::NoText);
    }
    if remainder == Remainder::Drop && tokens < sequence_length {
        return Err(DataError::ShorterThanOneRow { tokens, needed: sequence_length });
    }
    order.shuffle(&mut generator(seed, Purpose::DocumentOrder, 0));
    let mut rows = concat(&order, eos, sequence_length);
    let dropped_tokens = settle_last_row(&mut rows, eos, sequence_length, remainder);
    Ok(PackedRows { rows, sequence_length, dropped_tokens })
}

/// Cuts the stream of documents into rows, of which the last may be partial.
fn concat(documents: &[&Vec<u32>], eos: u32, sequence_length: usize) -> Vec<PackedRow> {
    let mut rows = Vec::new();
    let mut row = PackedRow::with_capacity(sequence_length);
    for document in documents {
        let ended: Vec<u32> = document.iter().copied().chain([eos]).collect();
        let mut rest = ended.as_slice();
        while !rest.is_empty() {
            let room = sequence_length - row.ids.len();
            let (piece, after) = rest.split_at(room.min(rest.len()));
            row.push_document(piece);
            row.valid = row.ids.len();
            if row.valid == sequence_length {
                row.continuation = after.first().copied();
                rows.push(std::mem::replace(&mut row, PackedRow::with_capacity(sequence_length)));
            }
            rest = after;
        }
    }
    if row.valid > 0 {
        rows.push(row);
    }
    rows
}

/// Pads or drops a partial last row; returns the number of tokens dropped.
fn settle_last_row(
    rows: &mut Vec<PackedRow>,
    eos: u32,
    sequence_length: usize,
    remainder: Remainder,
) -> usize {
    match (rows.pop_if(|row| row.valid < sequence_length), remainder) {
        (None, _) => 0,
        (Some(row), Remainder::Drop) => row.valid,
        (Some(mut row), Remainder::Pad) => {
            row.push_document(&vec![eos; sequence_length - row.valid]);
            rows.push(row);
            0
        }
    }
}

#[cfg(test)]
mod tests;
