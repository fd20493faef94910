//! Batches of rows.

use rand::seq::SliceRandom;

use crate::packing::{IGNORE_INDEX, PackedRow, PackedRows};
use crate::random::{Purpose, generator};
use crate::{DataError, Result};

/// Some rows as one step of a model takes them: N = `batch` * `tokens` tokens in row order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, `[N]`.
    pub ids: Vec<u32>,
    /// Target of every token, or [`IGNORE_INDEX`], `[N]`.
    pub labels: Vec<i32>,
    /// Borders of the attention documents, strictly ascending from 0 to N; every border of a row is one.
    pub cu_seqlens: Vec<usize>,
    /// Whether a token is not padding, `[N]`.
    pub valid: Vec<bool>,
    /// Rows.
    pub batch: usize,
    /// Tokens of a row.
    pub tokens: usize,
}

impl Batch {
    fn from_rows<'a>(rows: impl IntoIterator<Item = &'a PackedRow>, tokens: usize) -> Self {
        let mut batch =
            Self { ids: vec![], labels: vec![], cu_seqlens: vec![0], valid: vec![], batch: 0, tokens };
        for row in rows {
            let start = batch.ids.len();
            batch.ids.extend_from_slice(row.ids());
            batch.labels.extend(row.labels());
            batch.cu_seqlens.extend(row.cu_seqlens()[1..].iter().map(|end| start + end));
            batch.valid.extend((0..tokens).map(|token| token < row.valid_tokens()));
            batch.batch += 1;
        }
        batch
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
    /// [`DataError::Setting`] if `batch_size` is 0.
    pub fn sequential_batches(&self, batch_size: usize) -> Result<impl ExactSizeIterator<Item = Batch> + '_> {
        check_batch_size(batch_size)?;
        Ok(self.rows().chunks(batch_size).map(|rows| Batch::from_rows(rows, self.sequence_length())))
    }
}

/// Draws training batches without end.
///
/// Each epoch is a new random order of all rows; epochs follow each other without a gap, so a batch may begin
/// in one and end in the next, and every row is used equally often whatever the batch size. Batch `index` is
/// a pure function of (rows, batch size, seed, index): a resumed run needs only the index to go on.
#[derive(Clone, Debug)]
pub struct Loader {
    rows: PackedRows,
    batch_size: usize,
    seed: u64,
}

impl Loader {
    /// A loader of `batch_size` rows at a time.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `batch_size` is 0.
    pub fn new(rows: PackedRows, batch_size: usize, seed: u64) -> Result<Self> {
        check_batch_size(batch_size)?;
        Ok(Self { rows, batch_size, seed })
    }

    /// The rows drawn from.
    pub fn rows(&self) -> &PackedRows {
        &self.rows
    }

    /// Rows of a batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The epoch, from 0, that the first row of batch `index` belongs to.
    pub fn epoch(&self, index: u64) -> u64 {
        self.start(index).0
    }

    /// Batch `index`, from 0.
    ///
    /// The order of the epoch is drawn anew at each call: 6 microseconds per thousand rows and no state to
    /// keep.
    pub fn batch(&self, index: u64) -> Batch {
        let (mut epoch, mut position) = self.start(index);
        let mut order = self.order(epoch);
        let mut rows = Vec::with_capacity(self.batch_size);
        while rows.len() < self.batch_size {
            if position == order.len() {
                epoch = epoch.wrapping_add(1);
                order = self.order(epoch);
                position = 0;
            }
            rows.push(&self.rows.rows()[order[position]]);
            position += 1;
        }
        Batch::from_rows(rows, self.rows.sequence_length())
    }

    /// The epoch of the first row of a batch and its position there.
    fn start(&self, index: u64) -> (u64, usize) {
        let count = self.rows.rows().len() as u128;
        let first = u128::from(index) * self.batch_size as u128;
        ((first / count) as u64, (first % count) as usize)
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rows.rows().len()).collect();
        order.shuffle(&mut generator(self.seed, Purpose::RowOrder, epoch));
        order
    }
}

fn check_batch_size(batch_size: usize) -> Result<()> {
    if batch_size > 0 { Ok(()) } else { Err(DataError::setting("batch_size", "at least 1", batch_size)) }
}

#[cfg(test)]
mod tests;
