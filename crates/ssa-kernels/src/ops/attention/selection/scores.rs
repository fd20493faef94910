//! The scores of a tile of queries against the block means `[C, H, D]` of their document.

use crate::cpu::gemm::{HostMatrix, HostMatrixMut, Output, Threads, matmul};
use crate::ops::attention::blocks::Tile;
use crate::ops::attention::shape::AttentionShape;

/// Query rows (tokens times heads of a group) of a tile: enough for its products to run at full
/// speed, few enough for its scores to stay in the L2 cache at a thousand blocks.
const ROWS_PER_TILE: usize = 128;

/// Tokens of a tile.
pub(super) fn tokens_per_tile(shape: AttentionShape) -> usize {
    (ROWS_PER_TILE / shape.group()).max(1)
}

/// Complete blocks of a token's document: those that end at or before the token.
pub(super) fn complete_blocks(tile: &Tile, token: usize, block_size: usize) -> usize {
    (tile.position(token) + 1) / block_size
}

/// Copies the rows `[(token, g), D]` of one group out of `x` `[N, HQ, D]`, times `factor`.
pub(super) fn gather_group(
    rows: &mut Vec<f32>,
    x: &[f32],
    shape: AttentionShape,
    tile: &Tile,
    kv_head: usize,
    factor: f32,
) {
    let len = shape.group() * shape.head_dim;
    rows.clear();
    for token in tile.tokens.clone() {
        let x = &x[(token * shape.kv_heads + kv_head) * len..][..len];
        rows.extend(x.iter().map(|x| factor * x));
    }
}

/// The means `[blocks, D]` of the first blocks of the tile's document for one key/value head.
pub(super) fn means<'a>(
    pooled: &'a [f32],
    shape: AttentionShape,
    tile: &Tile,
    kv_head: usize,
    blocks: usize,
) -> HostMatrix<'a> {
    let start = (tile.first_block * shape.kv_heads + kv_head) * shape.head_dim;
    HostMatrix::with_row_stride(
        &pooled[start..],
        blocks,
        shape.head_dim,
        shape.kv_heads * shape.head_dim,
    )
}

/// `scores = rows meansᵀ` `[rows, blocks]` for gathered rows.
pub(super) fn score(
    scores: &mut Vec<f32>,
    rows: &[f32],
    means: HostMatrix<'_>,
    shape: AttentionShape,
    blocks: usize,
) {
    let count = rows.len() / shape.head_dim;
    scores.resize(count * blocks, 0.0);
    matmul(
        HostMatrixMut::new(scores, count, blocks),
        Output::Overwrite,
        1.0,
        HostMatrix::new(rows, count, shape.head_dim),
        means.t(),
        Threads::One,
    );
}
