//! The key of a matrix product: products with equal keys run the same algorithm.

use crate::DType;

/// Everything that decides which algorithm is fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Rows, columns and inner size of the row-major product.
    pub(super) sizes: [usize; 3],
    pub(super) row_strides: [usize; 3],
    pub(super) transposed: [bool; 2],
    pub(super) inputs: DType,
    pub(super) output: DType,
    pub(super) add: bool,
    /// Alignment of the three addresses, at most 256 bytes.
    pub(super) alignment: [u32; 3],
}
