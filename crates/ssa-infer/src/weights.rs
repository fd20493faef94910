//! The type of weights.

use ssa_kernels::ops::linear::LinearWeight;
use ssa_kernels::{Device, Tensor};

use crate::Result;

/// Packs matrices in the smallest type that holds them exactly.
pub(crate) fn packed(weights: &[&Tensor]) -> Result<LinearWeight> {
    let dtype = match weights[0].device() {
        Device::Cpu => LinearWeight::exact_dtype(weights)?,
        device => device.dtype(),
    };
    Ok(LinearWeight::new(weights, dtype)?)
}
