//! Document borders inside packed rows.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cuda::{Buffer, Gpu};
use crate::{KernelError, Result};

/// The documents of a batch: a partition of its N = B * T tokens into consecutive, non-empty
/// ranges.
///
/// This is the `cu_seqlens` of variable-length attention kernels, checked once. A document never
/// crosses a row. Positions, attention and block borders restart at each document, so block `c` of
/// a document holds its tokens `c * block_size ..` and block numbers are local to the document.
#[derive(Clone, Debug)]
pub struct Documents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Ascending, from 0 to N, one more entry than documents.
    cu_seqlens: Vec<usize>,
    /// What GPU kernels look up, made when first asked for.
    tables: Mutex<HashMap<TableKey, Arc<Buffer<i32>>>>,
}

/// The stream of a GPU, the name of a table and the numbers that it depends on.
type TableKey = (u64, &'static str, Vec<usize>);

impl PartialEq for Documents {
    fn eq(&self, other: &Self) -> bool {
        self.0.cu_seqlens == other.0.cu_seqlens
    }
}

impl Eq for Documents {}

impl Documents {
    /// One document per row.
    pub fn rows(batch: usize, tokens: usize) -> Self {
        let count = if tokens == 0 { 0 } else { batch };
        Self::new((0..=count).map(|row| row * tokens).collect())
    }

    /// Documents given by cumulative lengths: `[0, len_0, len_0 + len_1, ..., N]`.
    ///
    /// # Errors
    /// The list does not begin with 0 or does not strictly ascend.
    pub fn from_cu_seqlens(cu_seqlens: Vec<usize>) -> Result<Self> {
        let ascending = cu_seqlens.windows(2).all(|pair| pair[0] < pair[1]);
        if cu_seqlens.first() != Some(&0) || !ascending {
            return Err(KernelError::value(
                "Documents::from_cu_seqlens",
                "cu_seqlens",
                "strictly ascending offsets that begin with 0",
                format!("{cu_seqlens:?}"),
            ));
        }
        Ok(Self::new(cu_seqlens))
    }

    fn new(cu_seqlens: Vec<usize>) -> Self {
        Self(Arc::new(Inner { cu_seqlens, tables: Mutex::default() }))
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

    /// The cumulative lengths.
    pub fn cu_seqlens(&self) -> &[usize] {
        &self.0.cu_seqlens
    }

    /// The position of every token within its document.
    pub fn positions(&self) -> Vec<usize> {
        self.ranges().flat_map(|range| 0..range.len()).collect()
    }

    /// Number of blocks of `block_size` tokens over all documents, partial last blocks included.
    pub fn blocks(&self, block_size: usize) -> usize {
        self.ranges().map(|range| range.len().div_ceil(block_size)).sum()
    }

    /// A table of kernels on a GPU: made by `build` the first time, kept as long as the documents
    /// are.
    pub(crate) fn device_table(
        &self,
        gpu: &Gpu,
        name: &'static str,
        parameter: usize,
        build: impl FnOnce() -> Vec<i32>,
    ) -> Result<Arc<Buffer<i32>>> {
        self.device_table_of(gpu, name, &[parameter], build)
    }

    /// As [`device_table`](Self::device_table), of several numbers.
    pub(crate) fn device_table_of(
        &self,
        gpu: &Gpu,
        name: &'static str,
        parameters: &[usize],
        build: impl FnOnce() -> Vec<i32>,
    ) -> Result<Arc<Buffer<i32>>> {
        let key = (gpu.id(), name, parameters.to_vec());
        let mut tables = self.0.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&key) {
            return Ok(table.clone());
        }
        let table = Arc::new(gpu.upload(&build())?);
        tables.insert(key, table.clone());
        Ok(table)
    }

    /// For every token the first token of its document, `i32` `[N]` on a GPU.
    pub(crate) fn device_starts(&self, gpu: &Gpu) -> Result<Arc<Buffer<i32>>> {
        self.device_table(gpu, "starts", 0, || {
            self.ranges()
                .flat_map(|range| std::iter::repeat_n(range.start as i32, range.len()))
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_documents() {
        let documents = Documents::rows(2, 3);
        assert_eq!(documents.cu_seqlens(), [0, 3, 6]);
        assert_eq!(documents.positions(), [0, 1, 2, 0, 1, 2]);
        assert_eq!(documents.blocks(2), 4);
        assert!(Documents::rows(0, 3).is_empty());
    }

    #[test]
    fn bad_offsets_are_refused() {
        for bad in [vec![], vec![1, 2], vec![0, 2, 2], vec![0, 3, 1]] {
            assert!(Documents::from_cu_seqlens(bad).is_err());
        }
    }
}
