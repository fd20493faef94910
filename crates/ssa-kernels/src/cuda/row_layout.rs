//! How threads divide a row.

use super::Define;

/// Threads of a warp.
pub(crate) const WARP: usize = 32;

/// How neighboring lanes of a warp divide a row of `length` elements: `RowLayout` in `common.cuh`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowLayout {
    length: usize,
}

impl RowLayout {
    /// The layout of rows of `length` elements.
    pub(crate) const fn new(length: usize) -> Self {
        Self { length }
    }

    /// Elements in one load of a lane: 8 where rows are aligned for it, else 1.
    pub(crate) const fn vec(self) -> usize {
        if self.length.is_multiple_of(8) { 8 } else { 1 }
    }

    /// Vectors of a row.
    pub(crate) const fn vectors(self) -> usize {
        self.length / self.vec()
    }

    /// Lanes that share a row.
    pub(crate) const fn lanes(self) -> usize {
        if self.vectors() > WARP / 2 { WARP } else { self.vectors().next_power_of_two() }
    }

    /// The macros for kernels that call the length of a row `name`.
    pub(crate) const fn defines(self, name: &'static str) -> [Define; 3] {
        [
            (name, self.length as i64),
            ("ROW_VEC", self.vec() as i64),
            ("ROW_LANES", self.lanes() as i64),
        ]
    }
}
