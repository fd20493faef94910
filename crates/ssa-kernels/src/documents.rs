//! Document borders inside packed rows.

use std::ops::Range;
use std::sync::Arc;

use crate::cuda::{Buffer, Gpu};
use crate::device_cache::DeviceCache;
use crate::host_memory::collected;
use crate::{KernelError, Result};

/// The documents of a batch: a partition of its N = B * T tokens into consecutive, non-empty
/// ranges.
///
/// This is the `cu_seqlens` of variable-length attention kernels, checked once. A document never
/// crosses a row. Positions, attention and block borders restart at each document, so block `c` of
/// a document holds its tokens `c * block_size ..` and block numbers are local to the document.
///
/// N is at most [`Documents::MAX_TOKENS`].
#[derive(Clone, Debug)]
pub struct Documents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Ascending, from 0 to N, one more entry than documents.
    cu_seqlens: Vec<usize>,
    tables: DeviceCache<i32>,
}

/// Key of the first token of the document of every token.
#[derive(PartialEq)]
struct DocumentStarts;

impl PartialEq for Documents {
    fn eq(&self, other: &Self) -> bool {
        self.0.cu_seqlens == other.0.cu_seqlens
    }
}

impl Eq for Documents {}

impl Documents {
    /// The largest number of tokens of a batch: kernels number tokens by 32-bit integers.
    pub const MAX_TOKENS: usize = i32::MAX as usize;

    /// One document per row.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if `batch * tokens` is more than [`Documents::MAX_TOKENS`],
    /// [`KernelError::HostMemory`].
    pub fn rows(batch: usize, tokens: usize) -> Result<Self> {
        let count = if tokens == 0 { 0 } else { batch };
        Self::check_tokens("Documents::rows", "batch * tokens", count.saturating_mul(tokens))?;
        Ok(Self::new(collected((0..count + 1).map(|row| row * tokens))?))
    }

    /// Documents given by cumulative lengths: `[0, len_0, len_0 + len_1, ..., N]`.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the list does not begin with 0, does not strictly ascend, or
    /// ends with more than [`Documents::MAX_TOKENS`].
    pub fn from_cu_seqlens(cu_seqlens: Vec<usize>) -> Result<Self> {
        const OP: &str = "Documents::from_cu_seqlens";
        let refuse = |actual: String| {
            let expected = "strictly ascending offsets that begin with 0";
            Err(KernelError::value(OP, "cu_seqlens", expected, actual))
        };
        match cu_seqlens.first() {
            Some(0) => {}
            Some(first) => return refuse(format!("{first} at position 0")),
            None => return refuse("an empty list".to_owned()),
        }
        if let Some(index) = cu_seqlens.windows(2).position(|pair| pair[0] >= pair[1]) {
            let (offset, next) = (cu_seqlens[index], cu_seqlens[index + 1]);
            return refuse(format!("{next} after {offset} at position {}", index + 1));
        }
        let documents = Self::new(cu_seqlens);
        Self::check_tokens(OP, "cu_seqlens", documents.total_tokens())?;
        Ok(documents)
    }

    fn check_tokens(op: &'static str, argument: &'static str, tokens: usize) -> Result<()> {
        if tokens <= Self::MAX_TOKENS {
            return Ok(());
        }
        let expected = format!("at most {} tokens", Self::MAX_TOKENS);
        Err(KernelError::value(op, argument, expected, format!("{tokens} tokens")))
    }

    fn new(cu_seqlens: Vec<usize>) -> Self {
        Self(Arc::new(Inner { cu_seqlens, tables: DeviceCache::default() }))
    }

    /// Number of tokens N.
    pub fn total_tokens(&self) -> usize {
        self.0.cu_seqlens.last().copied().unwrap_or(0)
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.0.cu_seqlens.len().saturating_sub(1)
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token range of each document, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.0.cu_seqlens.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Tokens of the longest document; 0 if there is none.
    pub fn longest(&self) -> usize {
        self.ranges().map(|range| range.len()).max().unwrap_or(0)
    }

    /// The cumulative lengths.
    pub fn cu_seqlens(&self) -> &[usize] {
        &self.0.cu_seqlens
    }

    /// The position of every token within its document.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges().flat_map(|range| 0..range.len())
    }

    /// The first token of the document of every token.
    pub fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges().flat_map(|range| std::iter::repeat_n(range.start, range.len()))
    }

    /// Number of blocks of `block_size` tokens over all documents, partial last blocks included.
    /// No blocks if `block_size` is 0.
    pub fn blocks(&self, block_size: usize) -> usize {
        if block_size == 0 {
            return 0;
        }
        self.ranges().map(|range| range.len().div_ceil(block_size)).sum()
    }

    /// Tables of kernels on a GPU that depend on these documents.
    pub(crate) fn tables(&self) -> &DeviceCache<i32> {
        &self.0.tables
    }

    /// For every token the first token of its document, `[N]` on a GPU.
    pub(crate) fn device_starts(&self, gpu: &Gpu) -> Result<Arc<Buffer<i32>>> {
        self.tables().get(gpu, DocumentStarts, || self.starts().map(|start| start as i32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::assert_refused;

    #[test]
    fn rows_are_documents() {
        let documents = Documents::rows(2, 3).unwrap();
        assert_eq!(documents.cu_seqlens(), [0, 3, 6]);
        assert!(documents.positions().eq([0, 1, 2, 0, 1, 2]));
        assert!(documents.starts().eq([0, 0, 0, 3, 3, 3]));
        assert_eq!(documents.blocks(2), 4);
        assert!(Documents::rows(0, 3).unwrap().is_empty());
        assert!(Documents::rows(usize::MAX, 0).unwrap().is_empty());
    }

    #[test]
    fn bad_offsets_are_refused() {
        for bad in [vec![], vec![1, 2], vec![0, 2, 2], vec![0, 3, 1]] {
            assert_refused(Documents::from_cu_seqlens(bad), "cu_seqlens");
        }
        assert_refused(Documents::from_cu_seqlens(vec![0, 1 << 31]), "cu_seqlens");
        for (batch, tokens) in [(1, 1 << 31), (usize::MAX, 1), (usize::MAX, usize::MAX)] {
            assert_refused(Documents::rows(batch, tokens), "batch * tokens");
        }
    }

    #[test]
    fn every_block_size_has_a_number_of_blocks() {
        let documents = Documents::from_cu_seqlens(vec![0, 5, 6]).unwrap();
        let blocks = [1, 2, 5, usize::MAX, 0].map(|block_size| documents.blocks(block_size));
        assert_eq!(blocks, [6, 4, 2, 2, 0]);
    }
}
