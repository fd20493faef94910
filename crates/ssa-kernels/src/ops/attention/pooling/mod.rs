//! Block means of keys and values: what selection scores and compression attends to.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use super::blocks::Blocks;
use crate::checks::{axes, check_positive, check_shape, same_device};
use crate::{DType, Device, Documents, KernelError, Result, Tensor};

/// `pooled[c, h, d] = mean over the tokens t of block c of x[t, h, d]`.
///
/// # Shapes
/// `x` `[B, T, H, D]`; returns `[C, H, D]` with C = `documents.blocks(block_size)`: the blocks of
/// the first document, then those of the second, and so on.
///
/// # Dtypes
/// That of `x`; a block is summed in `f32`, on the CPU in the order of its tokens, on a GPU eight
/// sums are formed of every eighth token and added in order. [`mean_pool_f32_fwd`] keeps the sums
/// in `f32`.
///
/// # Edge cases
/// A partial last block is the mean of the tokens it has.
///
/// # Errors
/// [`KernelError::Shape`] if `x` does not have four axes, [`KernelError::Value`] if `block_size` is
/// zero or the documents do not cover the tokens of `x`.
///
/// # Determinism
/// Bitwise reproducible: the order of a block's sum depends on its length alone.
///
/// # Source
/// The pooled keys of the selection and compression branches, section 3 of the SSA paper (arXiv
/// 2511.20102).
pub fn mean_pool_fwd(x: &Tensor, documents: &Documents, block_size: usize) -> Result<Tensor> {
    forward("mean_pool_fwd", x, documents, block_size, x.dtype())
}

/// As [`mean_pool_fwd`], with means in `f32` on every device: what
/// [`select_blocks`](super::selection::select_blocks) ranks by. Rounded to `bf16` they would move
/// scores by 2^-9 of their size, and near ties with them.
///
/// # Errors
/// As [`mean_pool_fwd`].
pub fn mean_pool_f32_fwd(x: &Tensor, documents: &Documents, block_size: usize) -> Result<Tensor> {
    forward("mean_pool_f32_fwd", x, documents, block_size, DType::F32)
}

fn forward(
    op: &'static str,
    x: &Tensor,
    documents: &Documents,
    block_size: usize,
    dtype: DType,
) -> Result<Tensor> {
    let [heads, head_dim] = check_pooling(op, "x", x, documents, block_size)?;
    let device = x.device();
    let shape = [documents.blocks(block_size), heads, head_dim];
    let mut pooled = Tensor::for_output_on(&device, dtype, shape);
    match device {
        Device::Cuda(gpu) => cuda::forward(op, &gpu, x, documents, block_size, &mut pooled)?,
        Device::Cpu => {
            let blocks = Blocks::new(documents, block_size);
            cpu::forward(x.as_slice(), &blocks, heads * head_dim, pooled.as_mut_slice());
        }
    }
    Ok(pooled)
}

/// Gradient of [`mean_pool_fwd`]: `dx[t, h, d] += dpooled[c, h, d] / (tokens of block c)` for every
/// t of c.
///
/// # Shapes
/// `dpooled` `[C, H, D]`, `dx` `[B, T, H, D]`.
///
/// # Dtypes
/// `f32` on the CPU, `bf16` on a GPU; products and sums in `f32`.
///
/// # Errors
/// As [`mean_pool_fwd`] with `dx` in the place of `x`; [`KernelError::Shape`] if `dpooled` is not
/// `[C, H, D]`.
///
/// # Determinism
/// Bitwise reproducible.
pub fn mean_pool_bwd(
    dpooled: &Tensor,
    documents: &Documents,
    block_size: usize,
    dx: &mut Tensor,
) -> Result<()> {
    const OP: &str = "mean_pool_bwd";
    let [heads, head_dim] = check_pooling(OP, "dx", dx, documents, block_size)?;
    check_shape(OP, "dpooled", dpooled, &[documents.blocks(block_size), heads, head_dim])?;
    same_device(OP, dx, &[("dpooled", dpooled)])?;
    match dx.device() {
        Device::Cuda(gpu) => cuda::backward(OP, &gpu, dpooled, documents, block_size, dx),
        Device::Cpu => {
            let blocks = Blocks::new(documents, block_size);
            cpu::backward(dpooled.as_slice(), &blocks, heads * head_dim, dx.as_mut_slice());
            Ok(())
        }
    }
}

/// Returns H and D.
fn check_pooling(
    op: &'static str,
    argument: &'static str,
    x: &Tensor,
    documents: &Documents,
    block_size: usize,
) -> Result<[usize; 2]> {
    let [batch, tokens, heads, head_dim] = axes(op, argument, x, "[B, T, H, D]")?;
    check_positive(op, "block_size", block_size)?;
    if documents.total_tokens() != batch * tokens {
        let expected = format!("documents over {} tokens", batch * tokens);
        return Err(KernelError::value(op, "documents", expected, documents.total_tokens()));
    }
    Ok([heads, head_dim])
}
