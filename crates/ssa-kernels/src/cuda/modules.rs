//! All kernels of the crate.

use super::Module;
use crate::ops::attention::{pooling, selection, sparse};

/// Every module, for checks that compile all of them.
pub(super) static ALL: &[&Module] = &[
    &super::elementwise::MODULE,
    &pooling::cuda::MODULE,
    &selection::cuda::MODULE,
    &sparse::cuda::FORWARD,
    &sparse::cuda::BACKWARD_QUERIES,
    &sparse::cuda::BACKWARD_KEYS,
    &sparse::cuda::INVERSE_INDEX,
];
