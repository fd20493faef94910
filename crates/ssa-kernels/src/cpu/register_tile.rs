//! Small matrix products that hold a tile of their output in registers.
//!
//! A tile of `R` rows by `V` vectors stays in registers for the whole inner loop: one load of `V`
//! vectors and `R` broadcasts feed `R * V` multiply-adds. Every element of the output is one chain
//! of fused multiply-adds in the order of the inner index, so it has the same bits whatever the
//! tile it is computed in and whatever the width of a vector.

use pulp::Simd;

/// Rows are padded to this many elements: the widest vector (AVX-512), and a multiple of every
/// narrower one.
pub(crate) const LANES: usize = 16;

/// Rounds a row length up to whole vectors.
pub(crate) fn padded(len: usize) -> usize {
    len.next_multiple_of(LANES)
}

/// A product that can compute one tile of its output: `R` rows from `row`, `V` vectors from vector
/// `column`.
pub(crate) trait Product {
    fn tile<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, row: usize, column: usize);
}

/// Calls the product for every tile of an output of `rows` rows of `width` elements, a multiple of
/// the vector.
///
/// A tile of 8 x 2 needs 16 accumulators; where there are only 16 registers in all, 4 x 2 is the
/// largest that fits.
#[inline(always)]
pub(crate) fn run<S: Simd>(simd: S, rows: usize, width: usize, product: &mut impl Product) {
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
        } else if left == 3 {
            product.tile::<S, 3, V>(simd, row, column);
            row += 3;
        } else if left == 2 {
            product.tile::<S, 2, V>(simd, row, column);
            row += 2;
        } else {
            product.tile::<S, 1, V>(simd, row, column);
            row += 1;
        }
    }
}

/// Matrices of equal width that a product runs over, each row-major in whole vectors.
///
/// They are tiny (64 x 16 and 16 x 64 at the sizes of the paper), so a general matrix product would
/// spend its time packing. Instead every matrix is padded once to whole vectors.
pub(crate) trait Matrices {
    /// Their number.
    fn len(&self) -> usize;

    /// The elements of a matrix.
    fn matrix(&self, index: usize) -> &[f32];

    /// The rows of a matrix that count.
    fn rows(&self, index: usize) -> usize;

    /// Elements of a row.
    fn width(&self) -> usize;
}

/// `out[r, m * width ..] = x[r] matrix_m` for every matrix m `[D, width]`: scores of a query group,
/// side by side.
pub(crate) struct RowsTimesEach<'a, M> {
    /// `[rows, x_stride]`, of which the first D columns count.
    pub(crate) x: &'a [f32],
    pub(crate) x_stride: usize,
    pub(crate) matrices: M,
    /// `[rows, out_stride]`.
    pub(crate) out: &'a mut [f32],
    pub(crate) out_stride: usize,
}

impl<M: Matrices> Product for RowsTimesEach<'_, M> {
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
    ) {
        let width = self.matrices.width();
        for index in 0..self.matrices.len() {
            let mut tile = [[simd.splat_f32s(0.0); V]; R];
            multiply_add(
                simd,
                &mut tile,
                rows::<R>(self.x, row, self.x_stride, 0, self.matrices.rows(index)),
                S::as_simd_f32s(self.matrices.matrix(index)).0,
                width / S::F32_LANES,
                column,
            );
            let offset = index * width + column * S::F32_LANES;
            store(simd, &tile, self.out, row, self.out_stride, offset);
        }
    }
}

/// `out[r] += sum_m x[r, m * slot_stride ..] matrix_m` over matrices `[rows, width]`: the values of
/// blocks, weighted.
pub(crate) struct SumOfEach<'a, M> {
    /// `[rows, x_stride]`, a slot of `slot_stride` columns for every matrix.
    pub(crate) x: &'a [f32],
    pub(crate) x_stride: usize,
    pub(crate) slot_stride: usize,
    pub(crate) matrices: M,
    /// `[rows, width]`.
    pub(crate) out: &'a mut [f32],
}

impl<M: Matrices> Product for SumOfEach<'_, M> {
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
    ) {
        let width = self.matrices.width();
        let mut tile = load::<S, R, V>(simd, self.out, row, width, column * S::F32_LANES);
        for index in 0..self.matrices.len() {
            let (offset, len) = (index * self.slot_stride, self.matrices.rows(index));
            multiply_add(
                simd,
                &mut tile,
                rows::<R>(self.x, row, self.x_stride, offset, len),
                S::as_simd_f32s(self.matrices.matrix(index)).0,
                width / S::F32_LANES,
                column,
            );
        }
        store(simd, &tile, self.out, row, width, column * S::F32_LANES);
    }
}

/// `tile[r][v] += sum_l a[r][l] b[l][column + v]`, where the rows of `b` are `width` vectors long.
#[inline(always)]
pub(crate) fn multiply_add<S: Simd, const R: usize, const V: usize>(
    simd: S,
    tile: &mut [[S::f32s; V]; R],
    a: [&[f32]; R],
    b: &[S::f32s],
    width: usize,
    column: usize,
) {
    let mut sum = *tile;
    // With one length for all rows, and no more rows of `b`, the loop checks no index of `a`.
    let len = a[0].len();
    let a = a.map(|a| &a[..len]);
    for (l, b) in b.chunks_exact(width).take(len).enumerate() {
        let b = &b[column..][..V];
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
pub(crate) fn rows<const R: usize>(
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

/// The tile of `x` that begins at row `row` and element `offset`.
#[inline(always)]
pub(crate) fn load<S: Simd, const R: usize, const V: usize>(
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

/// Writes the tile of `out` that begins at row `row` and element `offset`.
#[inline(always)]
pub(crate) fn store<S: Simd, const R: usize, const V: usize>(
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
