//! Batches of rows.

use crate::mixture::{Mixture, RowId};
use crate::packing::{IGNORE_INDEX, PackedRow, PackedRows};
use crate::{DataError, Result};

/// A batch of rows: N = `batch` * `tokens` tokens in row order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, `[N]`.
    pub ids: Vec<u32>,
    /// Target of every token, or [`IGNORE_INDEX`], `[N]`.
    pub labels: Vec<i32>,
    /// Borders of the attention documents, strictly ascending from 0 to N; row borders are
    /// included.
    pub cu_seqlens: Vec<usize>,
    /// The mask of the tokens that are not padding, `[N]`.
    pub valid: Vec<bool>,
    /// Number of rows.
    pub batch: usize,
    /// Tokens per row.
    pub tokens: usize,
}

impl Batch {
    /// Joins `count` rows of `tokens` tokens each.
    fn from_rows(
        rows: impl Iterator<Item = Result<PackedRow>>,
        count: usize,
        tokens: usize,
    ) -> Result<Self> {
        let room = count * tokens;
        let mut batch = Self {
            ids: Vec::with_capacity(room),
            labels: Vec::with_capacity(room),
            cu_seqlens: vec![0],
            valid: Vec::with_capacity(room),
            batch: count,
            tokens,
        };
        for row in rows {
            let row = row?;
            let start = batch.ids.len();
            batch.ids.extend_from_slice(row.ids());
            batch.labels.extend(row.labels());
            batch.cu_seqlens.extend(row.cu_seqlens()[1..].iter().map(|end| start + end));
            batch.valid.extend((0..tokens).map(|token| token < row.valid_tokens()));
        }
        Ok(batch)
    }

    /// Number of tokens with a target: the denominator of the mean cross-entropy.
    pub fn target_tokens(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORE_INDEX).count()
    }

    /// Number of tokens that are not padding: the denominator of means over tokens.
    pub fn valid_tokens(&self) -> usize {
        self.valid.iter().filter(|&&valid| valid).count()
    }
}

impl PackedRows {
    /// Iterates over batches of up to `batch_size` rows that cover every row once, in order, for
    /// evaluation.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `batch_size` is 0. Items are errors of [`PackedRows::row`].
    pub fn sequential_batches(
        &self,
        batch_size: usize,
    ) -> Result<impl ExactSizeIterator<Item = Result<Batch>> + '_> {
        check_batch_size(batch_size)?;
        let batches = 0..self.len().div_ceil(batch_size);
        Ok(batches.map(move |batch| {
            let start = batch * batch_size;
            let end = self.len().min(start + batch_size);
            Batch::from_rows(
                (start..end).map(|row| self.row(row)),
                end - start,
                self.sequence_length(),
            )
        }))
    }
}

/// An endless source of training batches.
///
/// Each epoch is a new random order of all rows (per corpus, if several are mixed). Epochs follow
/// each other without a gap, so a batch may span two epochs, and every row is used equally often
/// for any batch size. Batch `index` is a pure function of (rows, batch size, seed, index),
/// computed in constant time: a resumed run only needs the index.
#[derive(Clone, Debug)]
pub struct Loader {
    mixture: Mixture,
    batch_size: usize,
    seed: u64,
}

impl Loader {
    /// Creates a loader of `batch_size` rows per batch from one corpus or a mixture of several.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `batch_size` is 0.
    pub fn new(rows: impl Into<Mixture>, batch_size: usize, seed: u64) -> Result<Self> {
        check_batch_size(batch_size)?;
        Ok(Self { mixture: rows.into(), batch_size, seed })
    }

    /// The rows to draw from.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// Rows per batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Passes over each corpus before batch `index`.
    pub fn epochs(&self, index: u64) -> Vec<f64> {
        self.mixture.epochs(self.first_row(index))
    }

    /// Returns batch `index`, counted from 0.
    ///
    /// # Errors
    /// [`DataError::Corpus`] names the file if a token is outside the vocabulary.
    pub fn batch(&self, index: u64) -> Result<Batch> {
        let first = self.first_row(index);
        let rows = (0..self.batch_size as u64)
            .map(|row| self.mixture.row(self.seed, first.wrapping_add(row)));
        Batch::from_rows(rows, self.batch_size, self.mixture.sequence_length())
    }

    /// Returns the ids of the rows of batch `index`.
    pub fn row_ids(&self, index: u64) -> Vec<RowId> {
        let first = self.first_row(index);
        (0..self.batch_size as u64)
            .map(|row| self.mixture.row_id(self.seed, first.wrapping_add(row)))
            .collect()
    }

    /// The stream has 2^64 rows, far more than any run reads, so it may wrap around.
    fn first_row(&self, index: u64) -> u64 {
        index.wrapping_mul(self.batch_size as u64)
    }
}

fn check_batch_size(batch_size: usize) -> Result<()> {
    if batch_size > 0 {
        Ok(())
    } else {
        Err(DataError::setting("batch_size", "at least 1", batch_size))
    }
}

#[cfg(test)]
mod tests;
