//! Block means of keys and values: what selection scores and compression attends to.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use super::blocks::Blocks;
use crate::checks::{axes, check_positive, check_shape};
use crate::{Device, Documents, KernelError, Result, Tensor};

/// `pooled[c, h, d] = mean over the tokens t of block c of x[t, h, d]`.
///
/// # Shapes
/// `x` `[B, T, H, D]`; returns `[C, H, D]` with C = `documents.blocks(block_size)`: the blocks of the first document,
/// then those of the second, and so on.
///
/// # Dtypes
/// `f32`; a block is summed in `f32` in the order of its tokens.
///
/// # Edge cases
/// A partial last block is the mean of the tokens it has.
///
/// # Errors
/// [`KernelError::Shape`] if `x` does not have four axes, [`KernelError::Value`] if `block_size` is zero or the
/// documents do not cover the tokens of `x`.
///
/// # Determinism
/// Bitwise reproducible: every block is summed by one thread.
///
/// # Source
/// The pooled keys of the selection and compression branches, section 3 of the SSA paper (arXiv 2511.20102).
pub fn mean_pool_fwd(x: &Tensor, documents: &Documents, block_size: usize) -> Result<Tensor> {
    let [heads, head_dim] = check_pooling("mean_pool_fwd", "x", x, documents, block_size)?;
    let blocks = Blocks::new(documents, block_size);
    let mut pooled = Tensor::for_output([blocks.len(), heads, head_dim]);
    match x.device() {
        Device::Cuda(gpu) => return Err(KernelError::no_kernel(&gpu)),
        Device::Cpu => cpu::forward(x.as_slice(), &blocks, heads * head_dim, pooled.as_mut_slice()),
    }
    Ok(pooled)
}

/// Gradient of [`mean_pool_fwd`]: `dx[t, h, d] += dpooled[c, h, d] / (tokens of block c)` for every t of c.
///
/// # Shapes
/// `dpooled` `[C, H, D]`, `dx` `[B, T, H, D]`.
///
/// # Dtypes
/// `f32`.
///
/// # Errors
/// As [`mean_pool_fwd`] with `dx` in the place of `x`; [`KernelError::Shape`] if `dpooled` is not `[C, H, D]`.
///
/// # Determinism
/// Bitwise reproducible.
pub fn mean_pool_bwd(
    dpooled: &Tensor,
    documents: &Documents,
    block_size: usize,
    dx: &mut Tensor,
) -> Result<()> {
    let [heads, head_dim] = check_pooling("mean_pool_bwd", "dx", dx, documents, block_size)?;
    let blocks = Blocks::new(documents, block_size);
    check_shape("mean_pool_bwd", "dpooled", dpooled, &[blocks.len(), heads, head_dim])?;
    match dx.device() {
        Device::Cuda(gpu) => return Err(KernelError::no_kernel(&gpu)),
        Device::Cpu => cpu::backward(dpooled.as_slice(), &blocks, heads * head_dim, dx.as_mut_slice()),
    }
    Ok(())
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
