//! The blocks of all documents, numbered over the batch.

use std::ops::Range;
use std::sync::Arc;

use crate::cuda::{Buffer, Gpu};
use crate::{Documents, Result};

/// The blocks of `block_size` tokens of all documents, numbered over the batch: block `c` of a
/// document is block `first + c` here, which is also its row in pooled tensors `[C, H, D]`.
pub(crate) struct Blocks {
    /// First token of every block, then N.
    starts: Vec<usize>,
    /// First block of every document, then the number of blocks.
    firsts: Vec<usize>,
}

/// Consecutive tokens of one document that are computed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    /// The tokens, counted over the whole batch.
    pub(crate) tokens: Range<usize>,
    /// First token of the document.
    pub(crate) document_start: usize,
    /// First block of the document.
    pub(crate) first_block: usize,
}

impl Tile {
    /// Position of a token of this tile within its document.
    pub(crate) fn position(&self, token: usize) -> usize {
        token - self.document_start
    }
}

impl Blocks {
    pub(crate) fn new(documents: &Documents, block_size: usize) -> Self {
        let mut starts = Vec::with_capacity(documents.blocks(block_size) + 1);
        let mut firsts = Vec::with_capacity(documents.len() + 1);
        for range in documents.ranges() {
            firsts.push(starts.len());
            starts.extend(range.step_by(block_size));
        }
        firsts.push(starts.len());
        starts.push(documents.total_tokens());
        Self { starts, firsts }
    }

    /// Number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The tokens of a block.
    pub(crate) fn range(&self, block: usize) -> Range<usize> {
        self.starts[block]..self.starts[block + 1]
    }

    /// For every token, the first block of its document.
    pub(crate) fn first_blocks(&self) -> Vec<usize> {
        let mut first_blocks = Vec::with_capacity(self.starts[self.len()]);
        for pair in self.firsts.windows(2) {
            first_blocks.resize(self.starts[pair[1]], pair[0]);
        }
        first_blocks
    }

    /// All tokens in order, in tiles of at most `tokens` that end with their document.
    pub(crate) fn tiles(&self, tokens: usize) -> Vec<Tile> {
        let tiles_of = |pair: &[usize]| {
            let (first_block, document) = (pair[0], self.starts[pair[0]]..self.starts[pair[1]]);
            let (document_start, end) = (document.start, document.end);
            document.step_by(tokens).map(move |start| Tile {
                tokens: start..end.min(start + tokens),
                document_start,
                first_block,
            })
        };
        self.firsts.windows(2).flat_map(tiles_of).collect()
    }
}

/// Key of the first block of the document of every token.
#[derive(PartialEq)]
struct FirstBlocks {
    block_size: usize,
}

/// Key of the first token of every block.
#[derive(PartialEq)]
struct BlockStarts {
    block_size: usize,
}

/// For every token the first block of its document, `i32` `[N]` on a GPU.
pub(crate) fn device_first_blocks(
    documents: &Documents,
    gpu: &Gpu,
    block_size: usize,
) -> Result<Arc<Buffer>> {
    documents.tables().get(gpu, FirstBlocks { block_size }, || {
        Blocks::new(documents, block_size)
            .first_blocks()
            .into_iter()
            .map(|block| block as i32)
            .collect()
    })
}

/// The first token of every block, then N, `i32` `[C + 1]` on a GPU.
pub(crate) fn device_block_starts(
    documents: &Documents,
    gpu: &Gpu,
    block_size: usize,
) -> Result<Arc<Buffer>> {
    documents.tables().get(gpu, BlockStarts { block_size }, || {
        Blocks::new(documents, block_size).starts.into_iter().map(|start| start as i32).collect()
    })
}

/// Splits a buffer that holds `width` elements per token into the parts of the tiles.
pub(crate) fn split_by_tile<T>(
    mut data: &mut [T],
    tiles: Vec<Tile>,
    width: usize,
) -> Vec<(Tile, &mut [T])> {
    let mut parts = Vec::with_capacity(tiles.len());
    for tile in tiles {
        let (part, rest) = data.split_at_mut(tile.tokens.len() * width);
        parts.push((tile, part));
        data = rest;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_tiles_end_with_their_document() {
        let documents = Documents::from_cu_seqlens(vec![0, 5, 6, 8]).unwrap();
        let blocks = Blocks::new(&documents, 2);
        let ranges: Vec<_> = (0..blocks.len()).map(|block| blocks.range(block)).collect();
        assert_eq!(ranges, [0..2, 2..4, 4..5, 5..6, 6..8]);
        assert_eq!(blocks.first_blocks(), [0, 0, 0, 0, 0, 3, 4, 4]);

        let tiles = blocks.tiles(4);
        let tokens: Vec<_> = tiles.iter().map(|tile| tile.tokens.clone()).collect();
        assert_eq!(tokens, [0..4, 4..5, 5..6, 6..8]);
        assert_eq!(tiles[1], Tile { tokens: 4..5, document_start: 0, first_block: 0 });
        assert_eq!(tiles[3], Tile { tokens: 6..8, document_start: 6, first_block: 4 });

        let mut data = [0; 16];
        let parts = split_by_tile(&mut data, tiles, 2);
        assert_eq!(parts.iter().map(|(_, part)| part.len()).collect::<Vec<_>>(), [8, 2, 2, 4]);
    }

    #[test]
    fn a_batch_without_tokens_has_no_blocks() {
        let blocks = Blocks::new(&Documents::rows(0, 3).unwrap(), 2);
        assert_eq!(blocks.len(), 0);
        assert!(blocks.tiles(4).is_empty() && blocks.first_blocks().is_empty());
    }
}
