//! The result of selection: which blocks each token attends to.

use std::borrow::Cow;
use std::sync::Arc;

use crate::checks::check_positive;
use crate::cuda::{Buffer, Gpu};
use crate::{Device, Documents, KernelError, Result};

/// The selected blocks of every token and key/value head, checked once against the documents they
/// belong to.
///
/// Stored as `[B, T, H, K]`: ascending block numbers, counted from the token's document, then -1 in
/// unused slots. The invariants, on which the attention ops rely without looking again: the numbers
/// strictly ascend, none lies behind the token, and the last used one is the token's own block. So
/// every token sees at least itself, and only its last block needs a causal mask.
///
/// A selection made on a GPU stays there, and cloning it copies nothing; [`BlockIndices::to_host`]
/// brings it back.
#[derive(Clone)]
pub struct BlockIndices {
    indices: Storage,
    documents: Documents,
    kv_heads: usize,
    block_size: usize,
    block_counts: usize,
}

#[derive(Clone)]
enum Storage {
    Host(Vec<i32>),
    Device(Arc<Buffer<i32>>),
}

impl BlockIndices {
    /// Takes over indices `[B, T, H, K]` in the layout of this type; K is `block_counts`.
    ///
    /// # Errors
    /// [`KernelError::Value`] if a size is zero, the number of elements is not B * T * H * K, or a
    /// row breaks an invariant of this type.
    pub fn from_vec(
        indices: Vec<i32>,
        documents: &Documents,
        kv_heads: usize,
        block_size: usize,
        block_counts: usize,
    ) -> Result<Self> {
        const OP: &str = "BlockIndices::from_vec";
        check_positive(OP, "kv_heads", kv_heads)?;
        check_positive(OP, "block_size", block_size)?;
        check_positive(OP, "block_counts", block_counts)?;
        let len = documents.total_tokens() * kv_heads * block_counts;
        if indices.len() != len {
            return Err(KernelError::value(
                OP,
                "indices",
                format!("{len} elements"),
                indices.len(),
            ));
        }
        for (position, heads) in
            documents.positions().into_iter().zip(indices.chunks(kv_heads * block_counts))
        {
            let current = position / block_size;
            if let Some(row) = heads.chunks(block_counts).find(|row| !is_selection(row, current)) {
                let expected = format!(
                    "strictly ascending blocks that end with {current}, the token's own, then -1"
                );
                return Err(KernelError::value(OP, "indices", expected, format!("{row:?}")));
            }
        }
        let indices = Storage::Host(indices);
        Ok(Self { indices, documents: documents.clone(), kv_heads, block_size, block_counts })
    }

    /// Every block up to the token's own, under which sparse attention equals full attention.
    ///
    /// Takes memory in proportion to tokens times blocks, unlike any selection worth running.
    ///
    /// # Panics
    /// `kv_heads` or `block_size` is 0.
    pub fn all(documents: &Documents, kv_heads: usize, block_size: usize) -> Self {
        assert!(kv_heads > 0 && block_size > 0, "sizes of a selection are positive");
        let longest = documents.ranges().map(|range| range.len()).max().unwrap_or(1);
        let block_counts = longest.div_ceil(block_size);
        let mut indices = Vec::with_capacity(documents.total_tokens() * kv_heads * block_counts);
        for position in documents.positions() {
            let current = (position / block_size) as i32;
            for _ in 0..kv_heads {
                indices.extend(
                    (0..block_counts as i32).map(|block| if block <= current { block } else { -1 }),
                );
            }
        }
        let indices = Storage::Host(indices);
        Self { indices, documents: documents.clone(), kv_heads, block_size, block_counts }
    }

    /// Takes over what a kernel that keeps the invariants has written: `i32` `[B, T, H, K]`.
    pub(crate) fn from_device(
        indices: Buffer<i32>,
        documents: &Documents,
        kv_heads: usize,
        block_size: usize,
        block_counts: usize,
    ) -> Self {
        let indices = Storage::Device(Arc::new(indices));
        Self { indices, documents: documents.clone(), kv_heads, block_size, block_counts }
    }

    /// Where the indices are.
    pub fn device(&self) -> Device {
        match &self.indices {
            Storage::Host(_) => Device::Cpu,
            Storage::Device(buffer) => Device::Cuda(buffer.gpu().clone()),
        }
    }

    /// The same selection in host memory; waits for the GPU if it is there.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued on the GPU before has failed.
    pub fn to_host(&self) -> Result<Cow<'_, Self>> {
        let Storage::Device(buffer) = &self.indices else { return Ok(Cow::Borrowed(self)) };
        let mut indices =
            vec![0; self.documents.total_tokens() * self.kv_heads * self.block_counts];
        buffer.read(&mut indices)?;
        Ok(Cow::Owned(Self { indices: Storage::Host(indices), ..self.clone() }))
    }

    /// The same selection on a device.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`], or [`KernelError::Cuda`] if work queued before has failed.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let indices = match device {
            Device::Cpu => return Ok(self.to_host()?.into_owned()),
            Device::Cuda(gpu) => Storage::Device(self.on_gpu("BlockIndices::to_device", gpu)?),
        };
        Ok(Self { indices, ..self.clone() })
    }

    /// The indices on a GPU; copied there if they are in host memory.
    pub(crate) fn on_gpu(&self, op: &'static str, gpu: &Gpu) -> Result<Arc<Buffer<i32>>> {
        match &self.indices {
            Storage::Host(indices) => Ok(Arc::new(gpu.upload(indices)?)),
            Storage::Device(buffer) if buffer.gpu() == gpu => Ok(buffer.clone()),
            Storage::Device(buffer) => {
                let (expected, actual) = (gpu.to_string(), buffer.gpu().to_string());
                Err(KernelError::Device { op, argument: "block_indices", expected, actual })
            }
        }
    }

    /// The ascending blocks that one token, counted over the whole batch, selects for one key/value
    /// head.
    ///
    /// # Panics
    /// As [`BlockIndices::as_slice`].
    pub fn selected(&self, token: usize, kv_head: usize) -> &[i32] {
        let start = (token * self.kv_heads + kv_head) * self.block_counts;
        let row = &self.as_slice()[start..start + self.block_counts];
        &row[..row.partition_point(|&block| block >= 0)]
    }

    /// All slots, `[B, T, H, K]`.
    ///
    /// # Panics
    /// If the selection is on a GPU: see [`BlockIndices::to_host`].
    pub fn as_slice(&self) -> &[i32] {
        match &self.indices {
            Storage::Host(indices) => indices,
            Storage::Device(_) => unreachable!("a selection on a GPU is not in host memory"),
        }
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

/// The same sizes, documents and blocks, wherever they are; one that cannot be read is equal to
/// none.
impl PartialEq for BlockIndices {
    fn eq(&self, other: &Self) -> bool {
        let sizes = |x: &Self| [x.kv_heads, x.block_size, x.block_counts];
        let indices = || match (self.to_host(), other.to_host()) {
            (Ok(a), Ok(b)) => a.as_slice() == b.as_slice(),
            _ => false,
        };
        sizes(self) == sizes(other) && self.documents == other.documents && indices()
    }
}

impl std::fmt::Debug for BlockIndices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("BlockIndices");
        debug.field("block_size", &self.block_size).field("block_counts", &self.block_counts);
        match &self.indices {
            Storage::Host(indices) => debug.field("indices", indices),
            Storage::Device(buffer) => debug.field("indices", &buffer.gpu()),
        };
        debug.finish_non_exhaustive()
    }
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

    #[test]
    fn all_selects_every_causal_block_of_the_document() {
        let documents = Documents::from_cu_seqlens(vec![0, 5, 6]).unwrap();
        let indices = BlockIndices::all(&documents, 2, 2);
        assert_eq!(indices.block_counts(), 3);
        assert_eq!(indices.selected(1, 1), [0]);
        assert_eq!(indices.selected(4, 0), [0, 1, 2]);
        assert_eq!(indices.selected(5, 1), [0]);
        let copy =
            BlockIndices::from_vec(indices.as_slice().to_vec(), &documents, 2, 2, 3).unwrap();
        assert_eq!(copy, indices);
    }

    #[test]
    fn rows_that_are_no_selection_are_refused() {
        // One document of 4 tokens in blocks of 2; the row given is that of the last token, in
        // block 1.
        let documents = Documents::rows(1, 4);
        let check = |row: [i32; 2]| {
            let indices = [[0, -1], [0, -1], [0, 1], row].concat();
            BlockIndices::from_vec(indices, &documents, 1, 2, 2)
        };
        assert!(check([0, 1]).is_ok());
        assert!(check([1, -1]).is_ok());
        for bad in [[0, -1], [1, 0], [1, 1], [1, 2], [-1, 1], [-1, -1], [1, -2]] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(BlockIndices::from_vec(vec![0; 3], &documents, 1, 2, 1).is_err());
        assert!(BlockIndices::from_vec(vec![], &documents, 1, 2, 0).is_err());
    }
}
