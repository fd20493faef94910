//! The sequences of a call: query ranges, first positions and key lengths.

use std::ops::Range;
use std::sync::Arc;

use crate::cuda::{Buffer, Gpu};
use crate::device_cache::DeviceCache;
use crate::{Documents, KernelError, Result};

/// The sequences of a call and the part of each that the call computes.
///
/// The N query tokens of a call are packed, without padding: each sequence has a consecutive,
/// non-empty range of them. The queries of a sequence stand at consecutive positions from its first
/// position on, and a query at position p sees the keys at positions `0..=p`. Keys before the first
/// position come from a cache.
///
/// | call | first position | keys |
/// |---|---|---|
/// | packed documents ([`Sequences::packed`]) | 0 | queries |
/// | a chunk of a prompt | tokens of the chunks before | first position + queries |
/// | a decoding step | tokens so far | first position + 1 |
#[derive(Clone, Debug)]
pub struct Sequences(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queries: Documents,
    first_positions: Vec<usize>,
    key_lens: Vec<usize>,
    tables: DeviceCache<i32>,
}

/// Key of the table of [`Sequences::device_origins`].
#[derive(PartialEq)]
struct Origins;

/// Key of the table of [`Sequences::device_key_starts`].
#[derive(PartialEq)]
struct KeyStarts;

impl PartialEq for Sequences {
    fn eq(&self, other: &Self) -> bool {
        self.0.queries == other.0.queries
            && self.0.first_positions == other.0.first_positions
            && self.0.key_lens == other.0.key_lens
    }
}

impl Eq for Sequences {}

impl From<&Documents> for Sequences {
    fn from(documents: &Documents) -> Self {
        Self::packed(documents)
    }
}

impl From<&Self> for Sequences {
    fn from(sequences: &Self) -> Self {
        sequences.clone()
    }
}

impl Sequences {
    /// Packed documents: every sequence begins at position 0 and has no other keys than its own.
    pub fn packed(documents: &Documents) -> Self {
        let key_lens: Vec<usize> = documents.ranges().map(|range| range.len()).collect();
        Self(Arc::new(Inner {
            queries: documents.clone(),
            first_positions: vec![0; key_lens.len()],
            key_lens,
            tables: DeviceCache::default(),
        }))
    }

    /// Sequences with the given query ranges, first positions and numbers of keys.
    ///
    /// # Errors
    /// [`KernelError::Argument`] unless each range of queries has a first position and a number of
    /// keys, which is at least first position + queries and at most [`Documents::MAX_TOKENS`].
    pub fn new(
        queries: Documents,
        first_positions: Vec<usize>,
        key_lens: Vec<usize>,
    ) -> Result<Self> {
        const OP: &str = "Sequences::new";
        for (argument, list) in [("first_positions", &first_positions), ("key_lens", &key_lens)] {
            if list.len() != queries.len() {
                let expected = format!("one entry for each of {} query ranges", queries.len());
                let actual = format!("{} entries", list.len());
                return Err(KernelError::value(OP, argument, expected, actual));
            }
        }
        for ((range, first), &keys) in queries.ranges().zip(&first_positions).zip(&key_lens) {
            let least = first.saturating_add(range.len());
            if !(least..=Documents::MAX_TOKENS).contains(&keys) {
                let most = Documents::MAX_TOKENS;
                let expected = format!("{least} (first position + queries) to {most} keys");
                return Err(KernelError::value(OP, "key_lens", expected, keys));
            }
        }
        let tables = DeviceCache::default();
        Ok(Self(Arc::new(Inner { queries, first_positions, key_lens, tables })))
    }

    /// The range of queries of each sequence.
    pub fn queries(&self) -> &Documents {
        &self.0.queries
    }

    /// Number of queries N.
    pub fn total_tokens(&self) -> usize {
        self.0.queries.total_tokens()
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.0.queries.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The queries of each sequence, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.0.queries.ranges()
    }

    /// The position of the first query of each sequence.
    pub fn first_positions(&self) -> &[usize] {
        &self.0.first_positions
    }

    /// The number of keys of each sequence.
    pub fn key_lens(&self) -> &[usize] {
        &self.0.key_lens
    }

    /// The position of every query within its sequence.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        let ranges = self.ranges().zip(&self.0.first_positions);
        ranges.flat_map(|(range, &first)| first..first + range.len())
    }

    /// One more than the largest position of a query; 0 if there is none.
    pub fn end_position(&self) -> usize {
        let ranges = self.ranges().zip(&self.0.first_positions);
        ranges.map(|(range, first)| first + range.len()).max().unwrap_or(0)
    }

    /// Whether all keys are those of the queries.
    fn is_packed(&self) -> bool {
        let keys = self.ranges().zip(&self.0.key_lens);
        keys.into_iter().all(|(range, &keys)| range.len() == keys)
    }

    /// Tables of kernels on a GPU that depend on these sequences.
    pub(crate) fn tables(&self) -> &DeviceCache<i32> {
        // Documents outlive the sequences made from them for one call, and so do their tables.
        if self.is_packed() { self.0.queries.tables() } else { &self.0.tables }
    }

    /// The number of keys of all sequences before each sequence, then of all, on a GPU.
    pub(crate) fn device_key_starts(&self, gpu: &Gpu) -> Result<Arc<Buffer<i32>>> {
        self.0.tables.get(gpu, KeyStarts, || {
            let ends = self.0.key_lens.iter().scan(0, |sum, &keys| {
                *sum += keys as i32;
                Some(*sum)
            });
            std::iter::once(0).chain(ends).collect()
        })
    }

    /// For every query its number in the call less its position, `[N]` on a GPU: the number that
    /// the first token of its sequence has, or would have.
    pub(crate) fn device_origins(&self, gpu: &Gpu) -> Result<Arc<Buffer<i32>>> {
        if self.0.first_positions.iter().all(|&first| first == 0) {
            return self.0.queries.device_starts(gpu);
        }
        self.0.tables.get(gpu, Origins, || {
            let origin = |(token, position): (usize, usize)| token as i32 - position as i32;
            self.positions().enumerate().map(origin).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::assert_refused;

    fn queries() -> Documents {
        Documents::from_cu_seqlens(vec![0, 3, 4]).unwrap()
    }

    #[test]
    fn positions_continue_after_the_cached_keys() {
        let sequences = Sequences::new(queries(), vec![2, 7], vec![5, 9]).unwrap();
        assert!(sequences.positions().eq([2, 3, 4, 7]));
        assert_eq!(sequences.end_position(), 8);
        assert_eq!((sequences.len(), sequences.total_tokens()), (2, 4));
    }

    #[test]
    fn packed_documents_have_their_own_keys_only() {
        let packed = Sequences::packed(&queries());
        assert_eq!(packed, Sequences::new(queries(), vec![0, 0], vec![3, 1]).unwrap());
        assert!(packed.positions().eq(queries().positions()));
        assert_eq!(Sequences::packed(&Documents::rows(0, 3).unwrap()).end_position(), 0);
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        assert_refused(Sequences::new(queries(), vec![0], vec![3, 1]), "first_positions");
        assert_refused(Sequences::new(queries(), vec![0, 0], vec![3]), "key_lens");
        for keys in [vec![2, 1], vec![3, 0], vec![3, 1 << 31]] {
            assert_refused(Sequences::new(queries(), vec![0, 0], keys), "key_lens");
        }
        assert_refused(Sequences::new(queries(), vec![0, usize::MAX], vec![3, 1]), "key_lens");
    }
}
