//! The product of the backward that sums over queries.

use pulp::Simd;

use crate::cpu::register_tile::{Product, load, store};

/// `out[j] += sum over entries and rows r of weights[r, j] * x[r]`: what the queries that selected
/// a block give back to its tokens.
pub(super) struct TransposedSum<'a> {
    /// Where each entry's rows begin in `weights` and in `x`.
    pub(super) entries: &'a [(usize, usize)],
    pub(super) weights: &'a [f32],
    pub(super) weights_stride: usize,
    pub(super) x: &'a [f32],
    /// Rows of an entry.
    pub(super) rows: usize,
    /// Elements of a row of `x` and `out`.
    pub(super) width: usize,
    /// `[block_size, width]`.
    pub(super) out: &'a mut [f32],
}

impl Product for TransposedSum<'_> {
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
    ) {
        let vectors = self.width / S::F32_LANES;
        let offset = column * S::F32_LANES;
        let mut tile = load::<S, R, V>(simd, self.out, row, self.width, offset);
        for &(weights, x) in self.entries {
            let weights = &self.weights[weights + row..];
            let x = S::as_simd_f32s(&self.x[x..x + self.rows * self.width]).0;
            for (weights, x) in weights.chunks(self.weights_stride).zip(x.chunks_exact(vectors)) {
                let (weights, x) = (&weights[..R], &x[column..column + V]);
                for r in 0..R {
                    let weight = simd.splat_f32s(weights[r]);
                    for v in 0..V {
                        tile[r][v] = simd.mul_add_f32s(weight, x[v], tile[r][v]);
                    }
                }
            }
        }
        store(simd, &tile, self.out, row, self.width, offset);
    }
}
