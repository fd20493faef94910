//! The result of selection: which blocks each token attends to.

use std::ops::Deref;
use std::sync::Arc;

use crate::cuda::{Buffer, Gpu};
use crate::host_memory::{reserved, zeros};
use crate::tensor::addressable_len;
use crate::{Device, Documents, KernelError, Result};

/// The selected blocks of every token and key/value head, checked once against the documents they
/// belong to.
///
/// Stored as `[B, T, H, K]`: ascending block numbers, counted from the token's document, then -1 in
/// unused slots. The attention ops rely on these invariants without checking them again: the
/// numbers strictly ascend, none is a block after the token, and the last used one is the token's
/// own block. So every token sees at least itself, and only its last block needs a causal mask.
///
/// A selection that a GPU made stays on the GPU. Cloning a selection copies none of its blocks.
/// [`BlockIndices::to_host`] gives access to them.
#[derive(Clone)]
pub struct BlockIndices {
    slots: Slots,
    documents: Documents,
    kv_heads: usize,
    block_size: usize,
    block_counts: usize,
}

/// All slots, `[B, T, H, K]`.
#[derive(Clone)]
enum Slots {
    Host(Arc<Vec<i32>>),
    Cuda(Arc<Buffer<i32>>),
}

impl BlockIndices {
    /// Takes over indices `[B, T, H, K]` in the layout of this type; K is `block_counts`.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if a size is zero, the number of elements is not B * T * H * K, or
    /// a row breaks an invariant of this type.
    pub fn from_vec(
        indices: Vec<i32>,
        documents: &Documents,
        kv_heads: usize,
        block_size: usize,
        block_counts: usize,
    ) -> Result<Self> {
        const OP: &str = "BlockIndices::from_vec";
        let len = slot_count(OP, documents, kv_heads, block_size, block_counts)?;
        if indices.len() != len {
            let (expected, actual) = (format!("{len} elements"), indices.len());
            return Err(KernelError::value(OP, "indices", expected, actual));
        }
        for (position, heads) in documents.positions().zip(indices.chunks(kv_heads * block_counts))
        {
            let current = position / block_size;
            if let Some(row) = heads.chunks(block_counts).find(|row| !is_selection(row, current)) {
                let expected = format!(
                    "strictly ascending blocks that end with {current}, the token's own, then -1"
                );
                return Err(KernelError::value(OP, "indices", expected, format!("{row:?}")));
            }
        }
        let slots = Slots::Host(Arc::new(indices));
        Ok(Self::new(slots, documents, [kv_heads, block_size, block_counts]))
    }

    /// Every block up to the token's own, under which sparse attention equals full attention.
    ///
    /// Takes memory in proportion to tokens times blocks, unlike any selection worth running.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if `kv_heads` or `block_size` is 0, or if the indices would take
    /// more than `isize::MAX` bytes; [`KernelError::HostMemory`].
    pub fn all(documents: &Documents, kv_heads: usize, block_size: usize) -> Result<Self> {
        let block_counts = documents.longest().max(1).div_ceil(block_size.max(1));
        let len = slot_count("BlockIndices::all", documents, kv_heads, block_size, block_counts)?;
        let mut indices = reserved(len)?;
        for position in documents.positions() {
            let current = (position / block_size) as i32;
            for _ in 0..kv_heads {
                indices.extend(
                    (0..block_counts as i32).map(|block| if block <= current { block } else { -1 }),
                );
            }
        }
        let slots = Slots::Host(Arc::new(indices));
        Ok(Self::new(slots, documents, [kv_heads, block_size, block_counts]))
    }

    /// Takes over what a kernel that keeps the invariants has written: `i32` `[B, T, H, K]`.
    pub(crate) fn from_device(
        indices: Buffer<i32>,
        documents: &Documents,
        kv_heads: usize,
        block_size: usize,
        block_counts: usize,
    ) -> Self {
        let slots = Slots::Cuda(Arc::new(indices));
        Self::new(slots, documents, [kv_heads, block_size, block_counts])
    }

    fn new(slots: Slots, documents: &Documents, sizes: [usize; 3]) -> Self {
        let [kv_heads, block_size, block_counts] = sizes;
        // A larger block holds every document as well, but kernels compute with 32-bit integers.
        let block_size = block_size.min(Documents::MAX_TOKENS);
        Self { slots, documents: documents.clone(), kv_heads, block_size, block_counts }
    }

    /// The device that holds the indices.
    pub fn device(&self) -> Device {
        match &self.slots {
            Slots::Host(_) => Device::Cpu,
            Slots::Cuda(buffer) => Device::Cuda(buffer.gpu().clone()),
        }
    }

    /// The same selection in host memory; waits for the GPU if it is there.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued on the GPU before has failed.
    pub fn to_host(&self) -> Result<HostBlockIndices> {
        let slots = match &self.slots {
            Slots::Host(slots) => slots.clone(),
            Slots::Cuda(buffer) => {
                let sizes = [self.documents.total_tokens(), self.kv_heads, self.block_counts];
                let mut slots = zeros(sizes.iter().product())?;
                buffer.read(&mut slots)?;
                Arc::new(slots)
            }
        };
        let indices = Self { slots: Slots::Host(slots.clone()), ..self.clone() };
        Ok(HostBlockIndices { indices, slots })
    }

    /// The same selection on a device.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if it is on another GPU, [`KernelError::OutOfMemory`], or
    /// [`KernelError::Cuda`] if work queued before has failed.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(self.to_host()?.indices),
            Device::Cuda(gpu) => {
                let slots = Slots::Cuda(self.on_gpu("BlockIndices::to_device", gpu)?);
                Ok(Self { slots, ..self.clone() })
            }
        }
    }

    /// The indices on a GPU; copied there if they are in host memory.
    pub(crate) fn on_gpu(&self, op: &'static str, gpu: &Gpu) -> Result<Arc<Buffer<i32>>> {
        match &self.slots {
            Slots::Host(slots) => Ok(Arc::new(gpu.upload(slots.as_slice())?)),
            Slots::Cuda(buffer) if buffer.gpu() == gpu => Ok(buffer.clone()),
            Slots::Cuda(buffer) => Err(KernelError::device(op, "block_indices", gpu, buffer.gpu())),
        }
    }

    /// Checks that this is a selection for these documents and this number of key/value heads.
    ///
    /// # Errors
    /// [`KernelError::Argument`] for `block_indices`.
    pub(crate) fn check_fits(
        &self,
        op: &'static str,
        documents: &Documents,
        kv_heads: usize,
    ) -> Result<()> {
        let refuse = |expected: String, actual: String| {
            Err(KernelError::value(op, "block_indices", expected, actual))
        };
        if self.documents != *documents {
            let expected = "a selection for the documents of the call".to_owned();
            return refuse(expected, "a selection for other documents".to_owned());
        }
        if self.kv_heads != kv_heads {
            let expected = format!("a selection for H = {kv_heads} key/value heads");
            return refuse(expected, format!("a selection for {} heads", self.kv_heads));
        }
        Ok(())
    }

    /// The documents in which blocks are counted.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// H.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Tokens of a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// K, the slots of a row.
    pub fn block_counts(&self) -> usize {
        self.block_counts
    }
}

impl std::fmt::Debug for BlockIndices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("BlockIndices");
        debug.field("block_size", &self.block_size).field("block_counts", &self.block_counts);
        match &self.slots {
            Slots::Host(slots) => debug.field("slots", slots),
            Slots::Cuda(buffer) => debug.field("slots", &buffer.gpu()),
        };
        debug.finish_non_exhaustive()
    }
}

/// [`BlockIndices`] whose slots are in host memory.
#[derive(Clone, Debug)]
pub struct HostBlockIndices {
    indices: BlockIndices,
    /// Those of `indices`.
    slots: Arc<Vec<i32>>,
}

impl HostBlockIndices {
    /// The ascending blocks that one token, counted over the whole batch, selects for one key/value
    /// head; empty if there is no such token or head.
    pub fn selected(&self, token: usize, kv_head: usize) -> &[i32] {
        let (heads, slots) = (self.indices.kv_heads, self.indices.block_counts);
        if token >= self.indices.documents.total_tokens() || kv_head >= heads {
            return &[];
        }
        let row = &self.slots[(token * heads + kv_head) * slots..][..slots];
        &row[..row.partition_point(|&block| block >= 0)]
    }

    /// All slots, `[B, T, H, K]`.
    pub fn as_slice(&self) -> &[i32] {
        &self.slots
    }
}

impl Deref for HostBlockIndices {
    type Target = BlockIndices;

    fn deref(&self) -> &BlockIndices {
        &self.indices
    }
}

/// The same sizes, documents and blocks.
impl PartialEq for HostBlockIndices {
    fn eq(&self, other: &Self) -> bool {
        let sizes = |x: &Self| [x.kv_heads, x.block_size, x.block_counts];
        sizes(self) == sizes(other)
            && self.documents == other.documents
            && self.slots == other.slots
    }
}

/// B * T * H * K.
fn slot_count(
    op: &'static str,
    documents: &Documents,
    kv_heads: usize,
    block_size: usize,
    block_counts: usize,
) -> Result<usize> {
    for (argument, value) in
        [("kv_heads", kv_heads), ("block_size", block_size), ("block_counts", block_counts)]
    {
        if value == 0 {
            return Err(KernelError::value(op, argument, "at least 1", value));
        }
    }
    let sizes = [documents.total_tokens(), kv_heads, block_counts];
    addressable_len(size_of::<i32>(), &sizes).ok_or_else(|| {
        let expected = format!("at most {} bytes of indices", isize::MAX);
        KernelError::value(op, "B * T * H * K", expected, format!("a product of {sizes:?}"))
    })
}

fn is_selection(row: &[i32], current: usize) -> bool {
    let used = row.iter().position(|&block| block < 0).unwrap_or(row.len());
    let (used, unused) = row.split_at(used);
    used.is_sorted_by(|a, b| a < b)
        && used.last().is_some_and(|&last| last as usize == current)
        && unused.iter().all(|&block| block == -1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::assert_refused;

    #[test]
    fn all_selects_every_causal_block_of_the_document() {
        let documents = Documents::from_cu_seqlens(vec![0, 5, 6]).unwrap();
        let indices = BlockIndices::all(&documents, 2, 2).unwrap().to_host().unwrap();
        assert_eq!(indices.block_counts(), 3);
        assert_eq!(indices.selected(1, 1), [0]);
        assert_eq!(indices.selected(4, 0), [0, 1, 2]);
        assert_eq!(indices.selected(5, 1), [0]);
        let copy =
            BlockIndices::from_vec(indices.as_slice().to_vec(), &documents, 2, 2, 3).unwrap();
        assert_eq!(copy.to_host().unwrap(), indices);
    }

    #[test]
    fn no_other_token_or_head_selects_anything() {
        let documents = Documents::rows(1, 4).unwrap();
        let indices = BlockIndices::all(&documents, 2, 2).unwrap().to_host().unwrap();
        assert_eq!(indices.selected(3, 1), [0, 1]);
        for (token, kv_head) in [(4, 0), (3, 2), (usize::MAX, usize::MAX)] {
            assert_eq!(indices.selected(token, kv_head), [0; 0]);
        }
    }

    #[test]
    fn sizes_that_memory_cannot_hold_are_refused() {
        let documents = Documents::rows(1, 4).unwrap();
        assert_refused(BlockIndices::all(&documents, 0, 2), "kv_heads");
        assert_refused(BlockIndices::all(&documents, 2, 0), "block_size");
        assert_refused(BlockIndices::all(&documents, usize::MAX, 2), "B * T * H * K");
        for documents in [documents, Documents::rows(1, 0).unwrap()] {
            let indices = BlockIndices::from_vec(vec![], &documents, usize::MAX, 1, usize::MAX);
            assert_refused(indices, "B * T * H * K");
        }
    }

    #[test]
    fn rows_that_are_no_selection_are_refused() {
        // One document of 4 tokens in blocks of 2; the row given is that of the last token, in
        // block 1.
        let documents = Documents::rows(1, 4).unwrap();
        let check = |row: [i32; 2]| {
            let indices = [[0, -1], [0, -1], [0, 1], row].concat();
            BlockIndices::from_vec(indices, &documents, 1, 2, 2)
        };
        check([0, 1]).unwrap();
        check([1, -1]).unwrap();
        for bad in [[0, -1], [1, 0], [1, 1], [1, 2], [-1, 1], [-1, -1], [1, -2]] {
            println!("{bad:?}");
            assert_refused(check(bad), "indices");
        }
        assert_refused(BlockIndices::from_vec(vec![0; 3], &documents, 1, 2, 1), "indices");
        assert_refused(BlockIndices::from_vec(vec![], &documents, 1, 2, 0), "block_counts");
    }
}
