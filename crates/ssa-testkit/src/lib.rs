//! Shared test helpers of the workspace. They work on plain slices without a tensor type, so that
//! the unit tests of `ssa-kernels` can use them. Assertions panic on failure; `ssa-selftest` and
//! `ssa-bench` use only the random inputs and golden files.

mod close;
mod golden;
mod gradcheck;
mod random;

pub use close::{Tolerance, assert_close, max_error};
pub use golden::{Golden, GoldenTensor, golden_dir};
pub use gradcheck::assert_gradient;
pub use random::Random;
