//! Rows of several corpora in given proportions.

use crate::packing::{PackedRow, PackedRows};
use crate::permutation::Permutation;
use crate::random::Purpose;
use crate::{DataError, Result};

/// An endless stream of rows, drawn from several corpora by weight.
///
/// Row `index` of the stream is a pure function of (corpora, weights, seed, index), computed in
/// constant time. Its corpus depends only on the weights: after any number of rows, each corpus has
/// supplied its share up to rounding (by less than the number of corpora). So the proportions hold
/// within every batch as far as whole rows allow, and exactly in the long run. Each corpus has its
/// own epochs, each a new random order of all its rows.
#[derive(Clone, Debug)]
pub struct Mixture {
    corpora: Vec<Part>,
    sequence_length: usize,
}

#[derive(Clone, Debug)]
struct Part {
    rows: PackedRows,
    /// The share of all rows, in (0, 1].
    share: f64,
    /// The share of the rows that the previous corpora leave, in units of 2^-64; unused for the
    /// last.
    of_rest: u64,
}

/// The corpus and number of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowId {
    /// Number of the corpus, from 0.
    pub corpus: usize,
    /// Number of the row within the corpus, from 0.
    pub row: usize,
}

/// A corpus and the number of its rows already drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    corpus: usize,
    /// Rows of this corpus earlier in the stream.
    drawn: u64,
}

impl Mixture {
    /// Creates a mixture of corpora with weights: positive numbers in any unit.
    ///
    /// # Errors
    /// [`DataError::Mixture`] if there is no corpus, a weight is not a positive number, or rows
    /// differ in length.
    pub fn new(corpora: Vec<(PackedRows, f64)>) -> Result<Self> {
        let refused = |cause: String| Err(DataError::Mixture { cause });
        let Some(sequence_length) = corpora.first().map(|(rows, _)| rows.sequence_length()) else {
            return refused("there is no corpus\nhint: name at least one".to_owned());
        };
        if let Some((rows, _)) =
            corpora.iter().find(|(rows, _)| rows.sequence_length() != sequence_length)
        {
            return refused(format!(
                "rows have {sequence_length} and {} tokens",
                rows.sequence_length()
            ));
        }
        if let Some((_, weight)) =
            corpora.iter().find(|(_, weight)| !(*weight > 0.0 && weight.is_finite()))
        {
            return refused(format!("a weight is {weight}, but weights are positive numbers"));
        }
        // Scaled first, so that sums of huge weights stay finite.
        let largest = corpora.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        let weights: Vec<f64> = corpora.iter().map(|(_, weight)| weight / largest).collect();
        let total: f64 = weights.iter().sum();
        let part = |(index, (rows, _)): (usize, (PackedRows, f64))| {
            let rest: f64 = weights[index..].iter().sum();
            let of_rest = (weights[index] / rest * 2_f64.powi(64)) as u64;
            Part { rows, share: weights[index] / total, of_rest }
        };
        Ok(Self { corpora: corpora.into_iter().enumerate().map(part).collect(), sequence_length })
    }

    /// The rows of each corpus.
    pub fn corpora(&self) -> impl ExactSizeIterator<Item = &PackedRows> {
        self.corpora.iter().map(|part| &part.rows)
    }

    /// The share of each corpus in the stream; they add up to 1.
    pub fn shares(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.corpora.iter().map(|part| part.share)
    }

    /// Tokens per row.
    pub fn sequence_length(&self) -> usize {
        self.sequence_length
    }

    /// Number of rows of all corpora.
    pub fn rows(&self) -> u64 {
        self.corpora().map(|rows| rows.len() as u64).sum()
    }

    /// The fraction of the drawn tokens that are not padding.
    pub fn utilization(&self) -> f64 {
        self.corpora.iter().map(|part| part.share * part.rows.utilization()).sum()
    }

    /// Passes over each corpus in the first `drawn` rows of the stream.
    pub fn epochs(&self, drawn: u64) -> Vec<f64> {
        let counts = self.counts(drawn).into_iter().zip(self.corpora());
        counts.map(|(count, rows)| count as f64 / rows.len() as f64).collect()
    }

    /// Row `index` of the stream.
    pub(crate) fn row(&self, seed: u64, index: u64) -> Result<PackedRow> {
        let RowId { corpus, row } = self.row_id(seed, index);
        self.corpora[corpus].rows.row(row)
    }

    /// The corpus and number of row `index` of the stream.
    pub(crate) fn row_id(&self, seed: u64, index: u64) -> RowId {
        let Position { corpus, drawn } = self.position(index);
        let count = self.corpora[corpus].rows.len() as u64;
        // There are fewer than 2^32 corpora: each is a list of rows in memory.
        let order = Permutation::new(count, seed, Purpose::RowOrder, corpus as u32, drawn / count);
        RowId { corpus, row: order.get(drawn % count) as usize }
    }

    /// Each corpus takes its share of the rows that the previous corpora leave.
    fn position(&self, index: u64) -> Position {
        let mut left = index;
        for (corpus, part) in self.corpora.iter().enumerate().take(self.corpora.len() - 1) {
            let drawn = part.taken(left);
            if part.taken_of(u128::from(left) + 1) > drawn {
                return Position { corpus, drawn };
            }
            left -= drawn;
        }
        Position { corpus: self.corpora.len() - 1, drawn: left }
    }

    /// Number of rows of each corpus among the first `drawn` of the stream.
    fn counts(&self, drawn: u64) -> Vec<u64> {
        let mut left = drawn;
        let last = self.corpora.len() - 1;
        let taken = |(corpus, part): (usize, &Part)| {
            let taken = if corpus == last { left } else { part.taken(left) };
            left -= taken;
            taken
        };
        self.corpora.iter().enumerate().map(taken).collect()
    }
}

impl Part {
    /// How many of the first `rows` remaining rows this corpus takes: its share, rounded.
    fn taken(&self, rows: u64) -> u64 {
        self.taken_of(u128::from(rows))
    }

    fn taken_of(&self, rows: u128) -> u64 {
        // At most 2^64 * (2^64 - 1) + 2^63, which fits in 128 bits.
        ((rows * u128::from(self.of_rest) + (1 << 63)) >> 64) as u64
    }
}

/// A single corpus.
impl From<PackedRows> for Mixture {
    fn from(rows: PackedRows) -> Self {
        let sequence_length = rows.sequence_length();
        Self { corpora: vec![Part { rows, share: 1.0, of_rest: u64::MAX }], sequence_length }
    }
}

#[cfg(test)]
mod tests;
