//! Matrix products, vectorized loops and parallel loops of the CPU paths of several ops.

pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod ordered_sum;
pub(crate) mod register_tile;
pub(crate) mod simd;
