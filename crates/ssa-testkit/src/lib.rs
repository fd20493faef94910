//! What the workspace's tests share. It works on plain slices and knows no tensor type, so that
//! `ssa-kernels` can use it for its own unit tests. Everything here panics on failure: it is only
//! ever a dev-dependency.

mod close;
mod golden;
mod gradcheck;
mod random;

pub use close::{Tolerance, assert_close, max_error};
pub use golden::{Golden, GoldenTensor, golden_dir};
pub use gradcheck::assert_gradient;
pub use random::Random;
