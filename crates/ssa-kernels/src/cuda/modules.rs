//! All kernels of the crate.

use super::Module;
use crate::ops;

/// Every module, for checks that compile all of them.
pub(super) static ALL: &[&Module] = &[
    &super::elementwise::MODULE,
    &ops::adamw::cuda::MODULE,
    &ops::attention::alignment::cuda::MODULE,
    &ops::attention::gated_pair::cuda::MODULE,
    &ops::cross_entropy::cuda::MODULE,
    &ops::embedding::cuda::MODULE,
    &ops::gate::cuda::MODULE,
    &ops::grad_norm::cuda::MODULE,
    &ops::rms_norm::cuda::MODULE,
    &ops::rope::cuda::MODULE,
    &ops::swiglu::cuda::MODULE,
];
