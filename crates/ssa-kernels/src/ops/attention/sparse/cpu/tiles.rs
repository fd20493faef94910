//! Matrix products of one query group with selected blocks, held in registers.
//!
//! The matrices are tiny (16 x 64 times 64 x 16 at the sizes of the paper), so a general matrix
//! product would spend its time packing. Instead every operand is padded once to whole vectors, and
//! each product computes its output in tiles of `R` rows by `V` vectors that stay in registers for
//! the whole inner loop: one load of `V` vectors and `R` broadcasts feed `R * V` multiply-adds.

use pulp::Simd;

use super::packed::Packed;

/// A product that can compute one tile of its output: `R` rows from `row`, `V` vectors from vector
/// `column`.
pub(super) trait Product {
    fn tile<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, row: usize, column: usize);
}

/// Calls the product for every tile of an output of `rows` rows of `width` elements, a multiple of
/// the vector.
///
/// A tile of 8 x 2 needs 16 accumulators; where there are only 16 registers in all, 4 x 2 is the
/// largest that fits.
#[inline(always)]
pub(super) fn run<S: Simd>(simd: S, rows: usize, width: usize, product: &mut impl Product) {
    let vectors = width / S::F32_LANES;
    if vectors.is_multiple_of(2) {
        for column in (0..vectors).step_by(2) {
            run_column::<S, 2>(simd, rows, column, S::REGISTER_COUNT >= 32, product);
        }
    } else {
        for column in 0..vectors {
            run_column::<S, 1>(simd, rows, column, true, product);
        }
    }
}

#[inline(always)]
fn run_column<S: Simd, const V: usize>(
    simd: S,
    rows: usize,
    column: usize,
    eight_fit: bool,
    product: &mut impl Product,
) {
    let mut row = 0;
    while row < rows {
        let left = rows - row;
        if left >= 8 && eight_fit {
            product.tile::<S, 8, V>(simd, row, column);
            row += 8;
        } else if left >= 4 {
            product.tile::<S, 4, V>(simd, row, column);
            row += 4;
        } else if left >= 2 {
            product.tile::<S, 2, V>(simd, row, column);
            row += 2;
        } else {
            product.tile::<S, 1, V>(simd, row, column);
            row += 1;
        }
    }
}

/// `out[r, m * width ..] = x[r] matrix_m` for every selected matrix m `[D, width]`: scores of a
/// query group, one block after the other.
pub(super) struct RowsTimesEach<'a> {
    /// `[rows, x_stride]`, of which the first D columns count.
    pub(super) x: &'a [f32],
    pub(super) x_stride: usize,
    pub(super) packed: &'a Packed,
    pub(super) matrices: &'a [usize],
    /// `[rows, out_stride]`.
    pub(super) out: &'a mut [f32],
    pub(super) out_stride: usize,
}

impl Product for RowsTimesEach<'_> {
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
    ) {
        let width = self.packed.width();
        for (slot, &matrix) in self.matrices.iter().enumerate() {
            let mut tile = [[simd.splat_f32s(0.0); V]; R];
            multiply_add(
                simd,
                &mut tile,
                rows::<R>(self.x, row, self.x_stride, 0, self.packed.rows()),
                S::as_simd_f32s(self.packed.matrix(matrix)).0,
                width / S::F32_LANES,
                column,
            );
            let offset = slot * width + column * S::F32_LANES;
            store(simd, &tile, self.out, row, self.out_stride, offset);
        }
    }
}

/// `out[r] = sum_m x[r, m * slot_stride ..] matrix_m` over the selected matrices `[block_size,
/// width]`: the values of the selected blocks, weighted.
pub(super) struct SumOfEach<'a> {
    /// `[rows, x_stride]`, a slot of `slot_stride` columns for every matrix.
    pub(super) x: &'a [f32],
    pub(super) x_stride: usize,
    pub(super) slot_stride: usize,
    pub(super) packed: &'a Packed,
    pub(super) matrices: &'a [usize],
    /// `[rows, width]`.
    pub(super) out: &'a mut [f32],
}

impl Product for SumOfEach<'_> {
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
    ) {
        let width = self.packed.width();
        let mut tile = [[simd.splat_f32s(0.0); V]; R];
        for (slot, &matrix) in self.matrices.iter().enumerate() {
            multiply_add(
                simd,
                &mut tile,
                rows::<R>(self.x, row, self.x_stride, slot * self.slot_stride, self.packed.rows()),
                S::as_simd_f32s(self.packed.matrix(matrix)).0,
                width / S::F32_LANES,
                column,
            );
        }
        store(simd, &tile, self.out, row, width, column * S::F32_LANES);
    }
}

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

/// `tile[r][v] += sum_l a[r][l] b[l][column + v]`, where the rows of `b` are `width` vectors long.
#[inline(always)]
fn multiply_add<S: Simd, const R: usize, const V: usize>(
    simd: S,
    tile: &mut [[S::f32s; V]; R],
    a: [&[f32]; R],
    b: &[S::f32s],
    width: usize,
    column: usize,
) {
    let mut sum = *tile;
    for l in 0..a[0].len() {
        let b = &b[l * width + column..][..V];
        for r in 0..R {
            let a = simd.splat_f32s(a[r][l]);
            for v in 0..V {
                sum[r][v] = simd.mul_add_f32s(a, b[v], sum[r][v]);
            }
        }
    }
    *tile = sum;
}

/// Rows `row .. row + R` of `x`, columns `offset .. offset + len`.
#[inline(always)]
fn rows<const R: usize>(
    x: &[f32],
    row: usize,
    stride: usize,
    offset: usize,
    len: usize,
) -> [&[f32]; R] {
    let mut rows: [&[f32]; R] = [&[]; R];
    for (r, slice) in rows.iter_mut().enumerate() {
        *slice = &x[(row + r) * stride + offset..][..len];
    }
    rows
}

#[inline(always)]
fn load<S: Simd, const R: usize, const V: usize>(
    simd: S,
    x: &[f32],
    row: usize,
    stride: usize,
    offset: usize,
) -> [[S::f32s; V]; R] {
    let mut tile = [[simd.splat_f32s(0.0); V]; R];
    for (r, tile) in tile.iter_mut().enumerate() {
        let x = &x[(row + r) * stride + offset..][..V * S::F32_LANES];
        tile.copy_from_slice(S::as_simd_f32s(x).0);
    }
    tile
}

#[inline(always)]
fn store<S: Simd, const R: usize, const V: usize>(
    _simd: S,
    tile: &[[S::f32s; V]; R],
    out: &mut [f32],
    row: usize,
    stride: usize,
    offset: usize,
) {
    for (r, tile) in tile.iter().enumerate() {
        let out = &mut out[(row + r) * stride + offset..][..V * S::F32_LANES];
        S::as_mut_simd_f32s(out).0.copy_from_slice(tile);
    }
}
