//! Batches of rows.

use crate::mixture::{Mixture, RowPlace};
use crate::packing::{IGNORE_INDEX, PackedRow, PackedRows};
use crate::{DataError, Result};

/// Some rows as one step of a model takes them: N = `batch` * `tokens` tokens in row order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, `[N]`.
    pub ids: Vec<u32>,
    /// Target of every token, or [`IGNORE_INDEX`], `[N]`.
    pub labels: Vec<i32>,
    /// Borders of the attention documents, strictly ascending from 0 to N; every border of a row is
    /// one.
    pub cu_seqlens: Vec<usize>,
    /// Whether a token is not padding, `[N]`.
    pub valid: Vec<bool>,
    /// Rows.
    pub batch: usize,
    /// Tokens of a row.
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

    /// Number of tokens that have a target: what a mean of the cross-entropy divides by.
    pub fn target_tokens(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORE_INDEX).count()
    }

    /// Number of tokens that are not padding: what a mean over tokens divides by.
    pub fn valid_tokens(&self) -> usize {
        self.valid.iter().filter(|&&valid| valid).count()
    }
}

impl PackedRows {
    /// Batches of up to `batch_size` rows that cover every row once, in order: for evaluation.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `batch_size` is 0. An item is an error where [`PackedRows::row`]
    /// is.
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

/// Draws training batches without end.
///
/// Each epoch is a new random order of all rows (of a corpus, if several are mixed); epochs follow
/// each other without a gap, so a batch may begin in one and end in the next, and every row is used
/// equally often whatever the batch size. Batch `index` is a pure function of (rows, batch size,
/// seed, index) that takes no longer for a late batch than for the first: a resumed run needs only
/// the index to go on.
#[derive(Clone, Debug)]
pub struct Loader {
    mixture: Mixture,
    batch_size: usize,
    seed: u64,
}

impl Loader {
    /// A loader of `batch_size` rows at a time from one corpus or a mixture of several.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `batch_size` is 0.
    pub fn new(rows: impl Into<Mixture>, batch_size: usize, seed: u64) -> Result<Self> {
        check_batch_size(batch_size)?;
        Ok(Self { mixture: rows.into(), batch_size, seed })
    }

    /// The rows drawn from.
    pub fn mixture(&self) -> &Mixture {
        &self.mixture
    }

    /// Rows of a batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Passes over each corpus completed before batch `index`.
    pub fn epochs(&self, index: u64) -> Vec<f64> {
        self.mixture.epochs(self.first_row(index))
    }

    /// Batch `index`, from 0.
    ///
    /// # Errors
    /// [`DataError::Corpus`] names the file if a token is not in the vocabulary.
    pub fn batch(&self, index: u64) -> Result<Batch> {
        let first = self.first_row(index);
        let rows = (0..self.batch_size as u64)
            .map(|row| self.mixture.row(self.seed, first.wrapping_add(row)));
        Batch::from_rows(rows, self.batch_size, self.mixture.sequence_length())
    }

    /// Where the rows of batch `index` come from.
    pub fn row_places(&self, index: u64) -> Vec<RowPlace> {
        let first = self.first_row(index);
        (0..self.batch_size as u64)
            .map(|row| self.mixture.place(self.seed, first.wrapping_add(row)))
            .collect()
    }

    /// The stream has 2^64 rows: more than anyone will see, so that it may as well begin again.
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
