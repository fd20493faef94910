//! What the CPU paths of several ops share: matrix products, vectorised loops and the rules of
//! parallel work.

pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod ordered_sum;
pub(crate) mod simd;
