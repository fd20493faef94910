//! Safe matrix products on slices, computed by the `gemm` crate.

#![allow(unsafe_code)]

use gemm::Parallelism;

/// The numbers that products are computed in.
pub(crate) trait Element: Copy + 'static {
    const ONE: Self;
}

impl Element for f32 {
    const ONE: Self = 1.0;
}

impl Element for f64 {
    const ONE: Self = 1.0;
}

/// A read-only matrix inside a slice: element `(i, j)` is `data[i * row_stride + j *
/// column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct HostMatrix<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> HostMatrix<'a, T> {
    /// A row-major matrix whose rows are `row_stride` elements apart.
    pub(crate) fn with_row_stride(
        data: &'a [T],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        assert_fits(data.len(), rows, columns, row_stride);
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// A contiguous row-major matrix.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self::with_row_stride(data, rows, columns, columns)
    }

    /// The transposed matrix over the same data.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// A writable row-major matrix inside a slice.
pub(crate) struct HostMatrixMut<'a, T = f32> {
    data: &'a mut [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, T> HostMatrixMut<'a, T> {
    /// A row-major matrix whose rows are `row_stride` elements apart.
    pub(crate) fn with_row_stride(
        data: &'a mut [T],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        assert_fits(data.len(), rows, columns, row_stride);
        Self { data, rows, columns, row_stride }
    }

    /// A contiguous row-major matrix.
    pub(crate) fn new(data: &'a mut [T], rows: usize, columns: usize) -> Self {
        Self::with_row_stride(data, rows, columns, columns)
    }
}

/// Whether a product uses all threads or only the calling one (inside an already parallel loop).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    All,
    One,
}

/// What happens to the values already in the output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// `out = a b`; the old values are not read.
    Overwrite,
    /// `out += a b`.
    Add,
}

/// `out = alpha a b` or `out += alpha a b`.
pub(crate) fn matmul<T: Element>(
    out: HostMatrixMut<'_, T>,
    mode: Output,
    alpha: T,
    a: HostMatrix<'_, T>,
    b: HostMatrix<'_, T>,
    threads: Threads,
) {
    assert_eq!(a.columns, b.rows, "inner sizes of a product agree");
    assert_eq!((out.rows, out.columns), (a.rows, b.columns), "output of a product has its shape");
    let parallelism = match threads {
        Threads::All => Parallelism::Rayon(0),
        Threads::One => Parallelism::None,
    };
    // SAFETY: each matrix was checked on construction to be inside its slice, the output is
    // borrowed mutably so it overlaps neither input, and with `Overwrite` the old output is not
    // read.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            mode == Output::Add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::ONE,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn assert_fits(len: usize, rows: usize, columns: usize, row_stride: usize) {
    assert!(columns <= row_stride || rows <= 1, "rows of a matrix do not overlap");
    if rows > 0 && columns > 0 {
        assert!((rows - 1) * row_stride + columns <= len, "a matrix is inside its slice");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_follow_strides_and_modes() {
        // a = [[1, 2], [3, 4]] inside rows of 3, b = [[1, 1], [0, 2]].
        let a = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0];
        let b = [1.0, 1.0, 0.0, 2.0];
        let mut out = [f32::NAN; 4];
        let a = HostMatrix::with_row_stride(&a, 2, 2, 3);
        let b = HostMatrix::new(&b, 2, 2);
        matmul(HostMatrixMut::new(&mut out, 2, 2), Output::Overwrite, 1.0, a, b, Threads::One);
        assert_eq!(out, [1.0, 5.0, 3.0, 11.0]);
        matmul(HostMatrixMut::new(&mut out, 2, 2), Output::Add, 2.0, a.t(), b.t(), Threads::All);
        assert_eq!(out, [1.0 + 8.0, 5.0 + 12.0, 3.0 + 12.0, 11.0 + 16.0]);
    }
}
