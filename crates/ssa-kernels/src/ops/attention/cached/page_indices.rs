//! The pages that the queries of a call select.

use std::borrow::Cow;
use std::sync::Arc;

use crate::cuda::Buffer;
use crate::kv_cache::CachedSequences;
use crate::{KernelError, Result, Sequences};

/// The selected pages of every query and key/value head, as [`select_pages`](super::select_pages)
/// made them, on the device of the cache. Those of a GPU are read by way of
/// [`to_host`](Self::to_host).
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
    /// The same two on a GPU; the lists above are empty then.
    on_device: Option<Arc<DeviceIndices>>,
}

/// Indices and kept mass on a GPU.
#[derive(Debug)]
pub(super) struct DeviceIndices {
    pub(super) indices: Buffer<i32>,
    /// Kept mass and number of pages.
    pub(super) kept_mass: Buffer<[f32; 2]>,
}

impl PageIndices {
    pub(super) fn new(
        sequences: &Sequences,
        kv_heads: usize,
        slots: usize,
        indices: Vec<i32>,
        kept_mass: Vec<f32>,
    ) -> Self {
        let sequences = sequences.clone();
        Self { sequences, kv_heads, slots, indices, kept_mass, on_device: None }
    }

    pub(super) fn on_device(
        sequences: &Sequences,
        kv_heads: usize,
        slots: usize,
        indices: DeviceIndices,
    ) -> Self {
        let on_device = Some(Arc::new(indices));
        Self { on_device, ..Self::new(sequences, kv_heads, slots, Vec::new(), Vec::new()) }
    }

    /// The indices in host memory: copied from a GPU, which waits for all work queued before.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued before has failed.
    pub fn to_host(&self) -> Result<Cow<'_, Self>> {
        let Some(device) = &self.on_device else { return Ok(Cow::Borrowed(self)) };
        let mut indices = vec![0; device.indices.len()];
        let mut kept_mass = vec![[0.0; 2]; device.kept_mass.len()];
        device.indices.read(&mut indices)?;
        device.kept_mass.read(&mut kept_mass)?;
        let kept_mass = kept_mass.into_iter().map(|[mass, _]| mass).collect();
        Ok(Cow::Owned(Self::new(&self.sequences, self.kv_heads, self.slots, indices, kept_mass)))
    }

    /// The indices in the memory of a GPU.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if they are on the CPU.
    pub(super) fn device(&self, op: &'static str) -> Result<&Buffer<i32>> {
        match &self.on_device {
            Some(device) => Ok(&device.indices),
            None => Err(KernelError::device(op, "keys", "a GPU", "cpu")),
        }
    }

    /// The ascending pages that a query selects for a key/value head; none if there is no such
    /// query or head, or on a GPU.
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
    /// dropped blocks. The estimate counts complete blocks only, each by its mean key. Empty on a
    /// GPU.
    pub fn kept_mass(&self) -> &[f32] {
        &self.kept_mass
    }

    /// The number of pages selected, over all queries and key/value heads; 0 on a GPU.
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
