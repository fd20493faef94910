//! The pages that the queries of a call select.

use crate::kv_cache::CachedSequences;
use crate::{KernelError, Result, Sequences};

/// The selected pages of every query and key/value head, as [`select_pages`](super::select_pages)
/// made them.
///
/// Pages are numbered within their sequence, so page `c` is block `c` of the sequence. The numbers
/// of a row strictly ascend; the last is the page of the query's own token.
#[derive(Clone, Debug)]
pub struct PageIndices {
    sequences: Sequences,
    kv_heads: usize,
    /// K.
    slots: usize,
    /// `[B, T, H, K]`; -1 in unused slots.
    indices: Vec<i32>,
    /// `[B, T, H]`.
    kept_mass: Vec<f32>,
}

impl PageIndices {
    pub(super) fn new(
        sequences: &Sequences,
        kv_heads: usize,
        slots: usize,
        indices: Vec<i32>,
        kept_mass: Vec<f32>,
    ) -> Self {
        Self { sequences: sequences.clone(), kv_heads, slots, indices, kept_mass }
    }

    /// The ascending pages that a query selects for a key/value head; none if there is no such query
    /// or head.
    pub fn selected(&self, query: usize, kv_head: usize) -> &[i32] {
        if kv_head >= self.kv_heads {
            return &[];
        }
        let row = self.indices.chunks_exact(self.slots).nth(query * self.kv_heads + kv_head);
        let row = row.unwrap_or_default();
        &row[..row.iter().take_while(|&&page| page >= 0).count()]
    }

    /// The estimated part of the attention of each query and key/value head that its pages keep,
    /// `[B, T, H]`: 1 less the mean, over the heads of the group, of the probabilities of the
    /// dropped blocks. The estimate counts complete blocks only, each by its mean key.
    pub fn kept_mass(&self) -> &[f32] {
        &self.kept_mass
    }

    /// The number of pages selected, over all queries and key/value heads.
    pub fn total(&self) -> usize {
        self.indices.iter().filter(|&&page| page >= 0).count()
    }

    /// K, the slots of a row.
    pub fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn check_fits(
        &self,
        op: &'static str,
        sequences: &CachedSequences,
        kv_heads: usize,
    ) -> Result<()> {
        if self.kv_heads != kv_heads || self.sequences != *sequences.sequences() {
            let expected = "a selection for the sequences and heads of the call";
            return Err(KernelError::value(op, "keys", expected, "one for others"));
        }
        Ok(())
    }
}
