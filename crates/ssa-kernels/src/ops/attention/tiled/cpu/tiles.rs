//! How attention is cut into tiles.

use std::ops::Range;

use super::TiledSlices;
use crate::cpu::gemm::HostMatrix;
use crate::ops::attention::shape::AttentionShape;
use crate::ops::attention::tiled::Visibility;

/// Rows of a query tile: enough to share the cost of packing a key tile.
const TILE_ROWS: usize = 256;
/// Tokens of a query tile: on the diagonal, a query computes half as many scores in vain.
const MAX_TILE_TOKENS: usize = 64;
/// Keys of a key tile: the two score tiles of a backward take 256 KiB, which fit the L2 cache.
const TILE_KEYS: usize = 128;

/// Consecutive queries of one document.
#[derive(Clone, Debug)]
pub(super) struct QueryTile {
    /// Tokens of the document.
    pub(super) document: Range<usize>,
    /// Tokens of the tile.
    pub(super) queries: Range<usize>,
    /// Rows of the document's keys.
    pub(super) keys: Range<usize>,
}

impl QueryTile {
    /// Cuts all documents, in order.
    pub(super) fn partition(call: &TiledSlices<'_>) -> Vec<Self> {
        let tokens = (TILE_ROWS / call.shape.group()).clamp(1, MAX_TILE_TOKENS);
        let mut tiles = Vec::new();
        let mut first_key = 0;
        for document in call.documents.ranges() {
            let keys = first_key..first_key + call.visibility.keys(document.len());
            first_key = keys.end;
            tiles.extend(document.clone().step_by(tokens).map(|start| Self {
                document: document.clone(),
                queries: start..document.end.min(start + tokens),
                keys: keys.clone(),
            }));
        }
        tiles
    }

    /// Tiles of the keys that some query of this tile sees.
    pub(super) fn key_tiles(
        &self,
        visibility: Visibility,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let first = self.seen(visibility, self.queries.start).start;
        let end = self.seen(visibility, self.queries.end - 1).end;
        (first..end).step_by(TILE_KEYS).map(move |start| start..end.min(start + TILE_KEYS))
    }

    /// The columns of a key tile that a query sees.
    pub(super) fn visible(
        &self,
        visibility: Visibility,
        query: usize,
        keys: &Range<usize>,
    ) -> Range<usize> {
        let seen = self.seen(visibility, query);
        let end = seen.end.clamp(keys.start, keys.end);
        let first = seen.start.clamp(keys.start, end);
        first - keys.start..end - keys.start
    }

    /// The rows of keys that a query sees.
    fn seen(&self, visibility: Visibility, query: usize) -> Range<usize> {
        let seen = visibility.seen(query - self.document.start);
        self.keys.start + seen.start..self.keys.start + seen.end
    }
}

/// Splits a buffer of `width` elements per token into the parts of the tiles.
pub(super) fn split_by_tiles<'a>(
    mut buffer: &'a mut [f32],
    tiles: &[QueryTile],
    width: usize,
) -> Vec<&'a mut [f32]> {
    let split = |tile: &QueryTile| {
        let (part, rest) = std::mem::take(&mut buffer).split_at_mut(tile.queries.len() * width);
        buffer = rest;
        part
    };
    tiles.iter().map(split).collect()
}

/// Copies the rows of one key/value head's query heads: `[tokens, HQ, D]` to `[tokens * G, D]`.
pub(super) fn gather_rows(rows: &mut [f32], x: &[f32], shape: &AttentionShape, kv_head: usize) {
    let width = shape.group() * shape.head_dim;
    let tokens = x.chunks_exact(shape.q_heads * shape.head_dim);
    for (row, token) in rows.chunks_exact_mut(width).zip(tokens) {
        row.copy_from_slice(&token[kv_head * width..][..width]);
    }
}

/// The rows of one key/value head in a tile of keys or values: `[keys, D]`, in place.
pub(super) fn key_tile<'a>(
    x: &'a [f32],
    shape: &AttentionShape,
    kv_head: usize,
    keys: &Range<usize>,
) -> HostMatrix<'a> {
    let token = shape.kv_heads * shape.head_dim;
    let start = keys.start * token + kv_head * shape.head_dim;
    HostMatrix::with_row_stride(&x[start..], keys.len(), shape.head_dim, token)
}
