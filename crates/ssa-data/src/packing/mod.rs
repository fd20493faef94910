//! Packing documents of any length into rows of one length.

mod best_fit;
mod concat;
mod greedy;
mod index;
mod row;

use std::sync::Arc;

use index::RowIndex;
pub use row::PackedRow;

use crate::permutation::Permutation;
use crate::random::Purpose;
use crate::token_source::TokenSource;
use crate::{DataError, Result};

/// The label of a token that has no target; the cross-entropy leaves it out.
pub const IGNORE_INDEX: i32 = -100;

/// How documents become rows. Whatever the way, no token is lost or used twice, and every token of
/// a document but its first is a target exactly once: where a document is cut, the last token
/// before the cut has the first one after it as its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Documents concatenated and split at row boundaries: nothing is wasted.
    #[default]
    Concat,
    /// Documents are kept whole: each goes, longest first, to the row with the least room that
    /// takes it. Only a document longer than a row is cut, into whole rows and a rest.
    BestFit,
    /// Documents one after another; one that does not fit any more starts a new row. A document
    /// longer than a row is cut into whole rows and a rest, which the next documents follow.
    Greedy,
}

// The configuration of a run of version 0.1.0 says `best_fit`.
ssa_names::names!(Packing: "packing" {
    Concat = "concat",
    BestFit = "best-fit" | "best_fit",
    Greedy = "greedy",
});

/// What becomes of the last, partial row of [`Packing::Concat`]. The other ways leave room in many
/// rows, and pad them all.
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
    /// How documents become rows.
    pub packing: Packing,
    /// Seed of the order of documents.
    pub seed: u64,
    /// What becomes of a last, partial row.
    pub remainder: Remainder,
}

/// Rows of equal length: at least one.
///
/// A row is described by the documents in it, 4 bytes and 8 more for each document or part of one,
/// and its tokens are read from the source when it is asked for. Ten billion tokens in documents of
/// a thousand take about 110 MB in rows of 4096.
#[derive(Clone, Debug)]
pub struct PackedRows {
    source: Arc<TokenSource>,
    index: Arc<RowIndex>,
    /// How many of the rows of the index are meant, from the first on.
    rows: usize,
    sequence_length: usize,
    packing: Packing,
    tokens: u64,
    dropped_tokens: u64,
}

/// [`pack_documents`] of documents in memory, given without the `eos` that ends each.
///
/// # Errors
/// As [`pack_documents`].
pub fn pack(documents: &[Vec<u32>], eos: u32, options: &PackOptions) -> Result<PackedRows> {
    let source = TokenSource::in_memory(documents, eos);
    let all = source.all_documents()?;
    pack_documents(Arc::new(source), &all, options)
}

/// Packs some documents of a source, each once, in a random order that the seed decides. Documents
/// without tokens are left out. No token is read.
///
/// # Errors
/// [`DataError::Setting`] if `sequence_length` is below 2 (a row of one token may have no target at
/// all) or above 2^31; [`DataError::Amount`] if there is no token, if [`Remainder::Drop`] would
/// leave no row, and for a document of 2^32 tokens or more.
pub fn pack_documents(
    source: Arc<TokenSource>,
    documents: &[u32],
    options: &PackOptions,
) -> Result<PackedRows> {
    let PackOptions { sequence_length, packing, seed, remainder } = *options;
    if !(2..=1 << 31).contains(&sequence_length) {
        return Err(DataError::setting("sequence_length", "from 2 to 2^31", sequence_length));
    }
    let lengths = document_lengths(&source, documents)?;
    let tokens = lengths.iter().map(|&length| u64::from(length)).sum::<u64>();
    if tokens == 0 {
        return Err(DataError::no_text());
    }
    if documents.len() as u64 + tokens.div_ceil(sequence_length as u64) > u64::from(u32::MAX) {
        let cause = format!("{} documents and {tokens} tokens make too many rows", documents.len());
        return Err(source.too_large(cause));
    }
    let order = Permutation::new(documents.len() as u64, seed, Purpose::DocumentOrder, 0, 0);
    let in_order = (0..documents.len() as u64).map(|position| {
        let at = order.get(position) as usize;
        (documents[at], lengths[at] as usize)
    });
    let with_text = in_order.filter(|&(_, length)| length > 0);
    let mut index = match packing {
        Packing::Concat => concat::rows(with_text, sequence_length, documents.len(), tokens),
        Packing::BestFit => best_fit::rows(with_text, sequence_length),
        Packing::Greedy => greedy::rows(with_text, sequence_length),
    };
    let partial = tokens % sequence_length as u64;
    let drops = packing == Packing::Concat && remainder == Remainder::Drop && partial > 0;
    if drops {
        index.pop();
    }
    if index.rows() == 0 {
        let cause = format!(
            "the corpus has {tokens} tokens (ends of documents included) but one row needs \
             {sequence_length}"
        );
        let hint = format!("set `sequence_length` to {tokens} or less, or add text");
        return Err(DataError::amount(cause, hint));
    }
    let dropped_tokens = if drops { partial } else { 0 };
    let (rows, tokens) = (index.rows(), tokens - dropped_tokens);
    Ok(PackedRows {
        source,
        index: Arc::new(index),
        rows,
        sequence_length,
        packing,
        tokens,
        dropped_tokens,
    })
}

/// The lengths of the documents, read in the order in which they lie on disk.
fn document_lengths(source: &TokenSource, documents: &[u32]) -> Result<Vec<u32>> {
    let length = |&document: &u32| {
        let tokens = source.document_tokens(document);
        let cause =
            || format!("document {document} has {tokens} tokens, and fewer than 2^32 are possible");
        u32::try_from(tokens).map_err(|_| source.too_large(cause()))
    };
    documents.iter().map(length).collect()
}

impl PackedRows {
    /// Number of rows.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one row")]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Row `index`, its tokens read from the source.
    ///
    /// # Errors
    /// [`DataError::Corpus`] names the file if a token is not in the vocabulary.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len), as for a slice.
    pub fn row(&self, index: usize) -> Result<PackedRow> {
        PackedRow::read(&self.source, self.index.row(index), self.sequence_length)
    }

    /// The first rows, at least one of them. The documents of rows were put in random order, so
    /// these are a sample of all for [`Packing::Concat`] and [`Packing::Greedy`].
    pub fn first(&self, rows: usize) -> Self {
        let rows = rows.clamp(1, self.len());
        let tokens = (0..rows).map(|row| {
            let pieces = self.index.row(row).iter();
            let lengths = pieces
                .map(|piece| self.source.document_tokens(piece.document) - piece.offset as usize);
            lengths.sum::<usize>().min(self.sequence_length) as u64
        });
        let tokens = tokens.sum();
        Self { rows, tokens, ..self.clone() }
    }

    /// The rows in order. Those of [`Packing::Concat`] are one stream of tokens.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<PackedRow>> + '_ {
        (0..self.len()).map(|index| self.row(index))
    }

    /// Where the tokens are.
    pub fn source(&self) -> &TokenSource {
        &self.source
    }

    /// Tokens of a row.
    pub fn sequence_length(&self) -> usize {
        self.sequence_length
    }

    /// How the rows were made.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Tokens of the documents that are in no row: the partial row left out by [`Remainder::Drop`].
    pub fn dropped_tokens(&self) -> u64 {
        self.dropped_tokens
    }

    /// Tokens that are not padding.
    pub fn valid_tokens(&self) -> u64 {
        self.tokens
    }

    /// The share of the rows' tokens that are not padding, in (0, 1].
    pub fn utilization(&self) -> f64 {
        self.tokens as f64 / (self.len() as u64 * self.sequence_length as u64) as f64
    }

    /// Bytes of memory that describe the rows.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }
}

#[cfg(test)]
mod tests;
