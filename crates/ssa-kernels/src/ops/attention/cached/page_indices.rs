//! The pages that the queries of a call select.

use std::sync::Arc;

use crate::cuda::Buffer;
use crate::kv_cache::CachedSequences;
use crate::{KernelError, Result, Sequences};

/// The selected pages of every query and key/value head, as [`select_pages`](super::select_pages)
/// made them, on the device of the cache. [`PageIndices::to_host`] gives access to them.
#[derive(Clone, Debug)]
pub struct PageIndices {
    sequences: Sequences,
    kv_heads: usize,
    /// K.
    slots: usize,
    storage: Storage,
}

#[derive(Clone, Debug)]
enum Storage {
    Host(Arc<HostPageIndices>),
    Cuda(Arc<DeviceIndices>),
}

/// Indices and kept mass on a GPU.
#[derive(Debug)]
pub(super) struct DeviceIndices {
    pub(super) indices: Buffer<i32>,
    /// Kept mass and number of pages.
    pub(super) kept_mass: Buffer<[f32; 2]>,
}

/// [`PageIndices`] in host memory.
///
/// Pages are numbered within their sequence, so page `c` is block `c` of the sequence. The numbers
/// of a row strictly ascend; the last is the page of the query's own token.
#[derive(Debug)]
pub struct HostPageIndices {
    kv_heads: usize,
    slots: usize,
    /// `[B, T, H, K]`; -1 in unused slots.
    indices: Vec<i32>,
    /// `[B, T, H]`.
    kept_mass: Vec<f32>,
}

impl PageIndices {
    pub(super) fn from_host(
        sequences: &Sequences,
        [kv_heads, slots]: [usize; 2],
        indices: Vec<i32>,
        kept_mass: Vec<f32>,
    ) -> Self {
        let host = HostPageIndices { kv_heads, slots, indices, kept_mass };
        let storage = Storage::Host(Arc::new(host));
        Self { sequences: sequences.clone(), kv_heads, slots, storage }
    }

    pub(super) fn from_device(
        sequences: &Sequences,
        [kv_heads, slots]: [usize; 2],
        indices: DeviceIndices,
    ) -> Self {
        let storage = Storage::Cuda(Arc::new(indices));
        Self { sequences: sequences.clone(), kv_heads, slots, storage }
    }

    /// The indices in host memory: copied from a GPU, which waits for all work queued before.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued before has failed.
    pub fn to_host(&self) -> Result<Arc<HostPageIndices>> {
        let device = match &self.storage {
            Storage::Host(host) => return Ok(host.clone()),
            Storage::Cuda(device) => device,
        };
        let mut indices = vec![0; device.indices.len()];
        let mut kept_mass = vec![[0.0; 2]; device.kept_mass.len()];
        device.indices.read(&mut indices)?;
        device.kept_mass.read(&mut kept_mass)?;
        let kept_mass = kept_mass.into_iter().map(|[mass, _]| mass).collect();
        let &Self { kv_heads, slots, .. } = self;
        Ok(Arc::new(HostPageIndices { kv_heads, slots, indices, kept_mass }))
    }

    /// The indices if they are in host memory.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if they are on a GPU.
    pub(super) fn host(&self, op: &'static str) -> Result<&HostPageIndices> {
        match &self.storage {
            Storage::Host(host) => Ok(host),
            Storage::Cuda(device) => {
                Err(KernelError::device(op, "keys", "cpu", device.indices.gpu()))
            }
        }
    }

    /// The indices if they are in the memory of a GPU.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if they are on the CPU.
    pub(super) fn device(&self, op: &'static str) -> Result<&Buffer<i32>> {
        match &self.storage {
            Storage::Cuda(device) => Ok(&device.indices),
            Storage::Host(_) => Err(KernelError::device(op, "keys", "a GPU", "cpu")),
        }
    }

    /// Kept mass and number of pages of every query and head, if they are in the memory of a GPU.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if they are on the CPU.
    pub(super) fn device_kept(&self, op: &'static str) -> Result<&Buffer<[f32; 2]>> {
        match &self.storage {
            Storage::Cuda(device) => Ok(&device.kept_mass),
            Storage::Host(_) => Err(KernelError::device(op, "pages", "a GPU", "cpu")),
        }
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

impl HostPageIndices {
    /// The ascending pages that a query selects for a key/value head; none if there is no such
    /// query or head.
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
}
