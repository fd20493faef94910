//! Gradients of weights, which are kept for those that are trained: the gradient of a frozen one is
//! a tensor without elements.

use ssa_kernels::ops::bias::bias_bwd;
use ssa_kernels::ops::linear::linear_bwd_weight;
use ssa_kernels::{DType, Tensor};

use crate::Result;

/// Adds the gradient of the matrix of a linear map, if it is kept.
pub(crate) fn add_weight_gradient(dout: &Tensor, x: &Tensor, dweight: &mut Tensor) -> Result<()> {
    if dweight.is_empty() {
        return Ok(());
    }
    Ok(linear_bwd_weight(dout, x, dweight)?)
}

/// Adds the gradient of the bias of a linear map, if there is one and it is kept.
pub(crate) fn add_bias_gradient(dout: &Tensor, dbias: Option<&mut Tensor>) -> Result<()> {
    match dbias {
        Some(dbias) if !dbias.is_empty() => Ok(bias_bwd(dout, dbias)?),
        _ => Ok(()),
    }
}

/// Runs a backward that computes the gradient of `weight` along with others: into `dweight`, or if
/// that is not kept, into a tensor that is dropped.
pub(crate) fn with_gradient_of<R>(
    weight: &Tensor,
    dweight: &mut Tensor,
    backward: impl FnOnce(&mut Tensor) -> Result<R>,
) -> Result<R> {
    if !dweight.is_empty() {
        return backward(dweight);
    }
    backward(&mut Tensor::zeros_on(&weight.device(), DType::F32, weight.shape())?)
}
