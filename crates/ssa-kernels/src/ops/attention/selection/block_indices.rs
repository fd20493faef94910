//! The result of selection: which blocks each token attends to.

use crate::checks::check_positive;
use crate::{Documents, KernelError, Result};

/// The selected blocks of every token and key/value head, checked once against the documents they belong to.
///
/// Stored as `[B, T, H, K]`: ascending block numbers, counted from the token's document, then -1 in unused slots.
/// The invariants, on which the attention ops rely without looking again: the numbers strictly ascend, none lies
/// behind the token, and the last used one is the token's own block. So every token sees at least itself, and only
/// its last block needs a causal mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockIndices {
    indices: Vec<i32>,
    documents: Documents,
    kv_heads: usize,
    block_size: usize,
    block_counts: usize,
}

impl BlockIndices {
    /// Takes over indices `[B, T, H, K]` in the layout of this type; K is `block_counts`.
    ///
    /// # Errors
    /// [`KernelError::Value`] if a size is zero, the number of elements is not B * T * H * K, or a row breaks an
    /// invariant of this type.
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
            return Err(KernelError::value(OP, "indices", format!("{len} elements"), indices.len()));
        }
        for (position, heads) in
            documents.positions().into_iter().zip(indices.chunks(kv_heads * block_counts))
        {
            let current = position / block_size;
            if let Some(row) = heads.chunks(block_counts).find(|row| !is_selection(row, current)) {
                let expected =
                    format!("strictly ascending blocks that end with {current}, the token's own, then -1");
                return Err(KernelError::value(OP, "indices", expected, format!("{row:?}")));
            }
        }
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
                indices
                    .extend((0..block_counts as i32).map(|block| if block <= current { block } else { -1 }));
            }
        }
        Self { indices, documents: documents.clone(), kv_heads, block_size, block_counts }
    }

    /// The ascending blocks that one token, counted over the whole batch, selects for one key/value head.
    pub fn selected(&self, token: usize, kv_head: usize) -> &[i32] {
        let start = (token * self.kv_heads + kv_head) * self.block_counts;
        let row = &self.indices[start..start + self.block_counts];
        &row[..row.partition_point(|&block| block >= 0)]
    }

    /// All slots, `[B, T, H, K]`.
    pub fn as_slice(&self) -> &[i32] {
        &self.indices
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
        let copy = BlockIndices::from_vec(indices.as_slice().to_vec(), &documents, 2, 2, 3).unwrap();
        assert_eq!(copy, indices);
    }

    #[test]
    fn rows_that_are_no_selection_are_refused() {
        // One document of 4 tokens in blocks of 2; the row given is that of the last token, in block 1.
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
