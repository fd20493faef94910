//! Packs documents of any length into rows of equal length.

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

/// The label of a token without a target; the cross-entropy ignores it.
pub const IGNORE_INDEX: i32 = -100;

/// How documents are packed into rows. No method loses or repeats a token, and every token of a
/// document except the first is a target exactly once: if a document is cut, the target of the last
/// token before the cut is the first token after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Documents concatenated and split at row boundaries: no padding.
    #[default]
    Concat,
    /// Documents stay whole: each goes, longest first, to the row with the least sufficient room.
    /// Only a document longer than a row is cut, into full rows and a remainder.
    BestFit,
    /// Documents in order; one that does not fit starts a new row. A document longer than a row is
    /// cut into full rows and a remainder, which later documents can follow.
    Greedy,
}

// Runs of version 0.1.0 have `best_fit` in their configuration.
ssa_names::names!(Packing: "packing" {
    Concat = "concat",
    BestFit = "best-fit" | "best_fit",
    Greedy = "greedy",
});

/// What to do with the last, partial row of [`Packing::Concat`]. The other methods leave room in
/// many rows and pad them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remainder {
    /// Drop it, for training.
    Drop,
    /// Pad it, for evaluation, where every token should count.
    Pad,
}

/// Options of packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackOptions {
    /// Tokens per row, at least 2.
    pub sequence_length: usize,
    /// How documents are packed into rows.
    pub packing: Packing,
    /// Seed of the order of documents.
    pub seed: u64,
    /// What to do with a last, partial row.
    pub remainder: Remainder,
}

/// Rows of equal length; at least one.
///
/// Stores only the document pieces of each row (4 bytes per row and 8 per piece); tokens are read
/// from the source on request. Ten billion tokens in documents of a thousand need about 110 MB for
/// rows of 4096, and their source 80 MB.
#[derive(Clone, Debug)]
pub struct PackedRows {
    source: Arc<TokenSource>,
    index: Arc<RowIndex>,
    /// Number of rows of the index in use.
    rows: usize,
    sequence_length: usize,
    packing: Packing,
    tokens: u64,
    dropped_tokens: u64,
}

/// Packs documents in memory with [`pack_documents`]. Each is given without its final `eos`.
///
/// # Errors
/// Same as [`pack_documents`].
pub fn pack(documents: &[Vec<u32>], eos: u32, options: &PackOptions) -> Result<PackedRows> {
    let source = TokenSource::in_memory(documents, eos);
    let all = source.all_documents()?;
    pack_documents(Arc::new(source), &all, options)
}

/// Packs some documents of a source, each once, in a random order given by the seed. Documents
/// without tokens are skipped. Reads no tokens.
///
/// # Errors
/// [`DataError::Setting`] if `sequence_length` is below 2 (a row of one token may have no target)
/// or above 2^31; [`DataError::Amount`] if there is no token, if [`Remainder::Drop`] would leave no
/// row, and for a document of 2^32 tokens or more.
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
        let hint = format!(
            "set data.sequence_length (--sequence-length) to {tokens} or less, or add text"
        );
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

/// The lengths of the documents, read in the order on disk.
fn document_lengths(source: &TokenSource, documents: &[u32]) -> Result<Vec<u32>> {
    let length = |&document: &u32| {
        let tokens = source.document_tokens(document);
        let cause =
            || format!("document {document} has {tokens} tokens, but the limit is 2^32 - 1");
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

    /// Reads row `index` from the source.
    ///
    /// # Errors
    /// [`DataError::Corpus`] names the file if a token is outside the vocabulary.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len), as for a slice.
    pub fn row(&self, index: usize) -> Result<PackedRow> {
        PackedRow::read(&self.source, self.index.row(index), self.sequence_length)
    }

    /// Returns the first rows, at least one. Documents are in random order, so for
    /// [`Packing::Concat`] and [`Packing::Greedy`] these are a random sample.
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

    /// Iterates over the rows in order. With [`Packing::Concat`] they form one stream of tokens.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<PackedRow>> + '_ {
        (0..self.len()).map(|index| self.row(index))
    }

    /// The source of the tokens.
    pub fn source(&self) -> &TokenSource {
        &self.source
    }

    /// Tokens per row.
    pub fn sequence_length(&self) -> usize {
        self.sequence_length
    }

    /// How the rows were packed.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Number of tokens in no row: the partial row dropped by [`Remainder::Drop`].
    pub fn dropped_tokens(&self) -> u64 {
        self.dropped_tokens
    }

    /// Number of tokens that are not padding.
    pub fn valid_tokens(&self) -> u64 {
        self.tokens
    }

    /// The fraction of the rows' tokens that are not padding, in (0, 1].
    pub fn utilization(&self) -> f64 {
        self.tokens as f64 / (self.len() as u64 * self.sequence_length as u64) as f64
    }

    /// Bytes of memory for the row index.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }
}

#[cfg(test)]
mod tests;
