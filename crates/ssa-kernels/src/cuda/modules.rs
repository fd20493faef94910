//! All kernels of the crate.

use super::Module;
use crate::ops;
use crate::ops::attention::tiled::cuda as tiled;
use crate::ops::attention::{pooling, selection, sparse};

/// Every module, for checks that compile all of them.
pub(super) static ALL: &[&Module] = &[
    &super::elementwise::MODULE,
    &ops::adamw::cuda::MODULE,
    &ops::attention::alignment::cuda::MODULE,
    &ops::attention::gated_pair::cuda::MODULE,
    &ops::attention::statistics::cuda::MODULE,
    &ops::cross_entropy::cuda::MODULE,
    &ops::embedding::cuda::MODULE,
    &ops::gate::cuda::MODULE,
    &ops::grad_norm::cuda::MODULE,
    &ops::rms_norm::cuda::MODULE,
    &ops::rope::cuda::MODULE,
    &ops::swiglu::cuda::MODULE,
    &tiled::FORWARD,
    &tiled::FORWARD_SM90,
    &tiled::QUERIES,
    &tiled::QUERIES_SM90,
    &tiled::KEYS,
    &tiled::KEYS_SM90,
    &tiled::GRADIENTS,
    &pooling::cuda::MODULE,
    &selection::cuda::MODULE,
    &sparse::cuda::FORWARD,
    &sparse::cuda::BACKWARD_QUERIES,
    &sparse::cuda::BACKWARD_KEYS,
    &sparse::cuda::INVERSE_INDEX,
];
