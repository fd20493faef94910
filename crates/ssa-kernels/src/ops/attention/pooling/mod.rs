//! Block means of keys and values: what selection scores and compression attends to.

mod cpu;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use super::blocks::Blocks;
use super::shape::BLOCK_KEYS;
use crate::contract::{Args, B, C, Checked, D, H, T};
use crate::{Device, Documents, Result, Tensor};

/// `pooled[c, h, d] = mean over the tokens t of block c of x[t, h, d]`.
///
/// # Shapes
/// `x` `[B, T, H, D]`; `documents` over N = B * T tokens. Returns `[C, H, D]` with C =
/// `documents.blocks(block_size)`: the blocks of the first document, then those of the second, and
/// so on.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU, as `x`; the sum of a block is `f32`. The CPU adds the tokens in
/// order; a GPU adds every eighth token to one of eight sums and adds these in order.
/// [`mean_pool_f32_fwd`] returns the means in `f32`.
///
/// # Edge cases
/// A partial last block is the mean of the tokens it has. No tokens: an empty result.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type or is on another device, or if `block_size` is zero.
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: the order of a block's sum depends
/// on its length alone.
///
/// # Source
/// The pooled keys of the selection and compression branches, section 3 of the SSA paper (arXiv
/// 2511.20102).
pub fn mean_pool_fwd(x: &Tensor, documents: &Documents, block_size: usize) -> Result<Tensor> {
    let call = check_fwd("mean_pool_fwd", x, documents, block_size)?;
    let pooled = call.new_act(BLOCK_KEYS)?;
    forward(&call, x, documents, block_size, pooled)
}

/// [`mean_pool_fwd`] with means in `f32` on every device:
/// [`select_blocks`](super::selection::select_blocks) ranks by these. Means rounded to `bf16` would
/// move scores by 2^-9 of their size, and swap near ties.
///
/// # Shapes
/// As [`mean_pool_fwd`].
///
/// # Dtypes
/// As [`mean_pool_fwd`], with an `f32` result.
///
/// # Edge cases
/// As [`mean_pool_fwd`].
///
/// # Errors
/// As [`mean_pool_fwd`].
///
/// # Determinism
/// As [`mean_pool_fwd`].
///
/// # Source
/// As [`mean_pool_fwd`].
pub fn mean_pool_f32_fwd(x: &Tensor, documents: &Documents, block_size: usize) -> Result<Tensor> {
    let call = check_fwd("mean_pool_f32_fwd", x, documents, block_size)?;
    let pooled = call.new_f32(BLOCK_KEYS)?;
    forward(&call, x, documents, block_size, pooled)
}

fn check_fwd(
    op: &'static str,
    x: &Tensor,
    documents: &Documents,
    block_size: usize,
) -> Result<Checked> {
    Args::new(op)
        .act("x", x, [B, T, H, D])
        .documents(documents)
        .positive("block_size", block_size)
        .size("block_size", C, documents.blocks(block_size))
        .check()
}

fn forward(
    call: &Checked,
    x: &Tensor,
    documents: &Documents,
    block_size: usize,
    mut pooled: Tensor,
) -> Result<Tensor> {
    match call.device() {
        Device::Cuda(gpu) => cuda::forward(gpu, x, documents, block_size, &mut pooled)?,
        Device::Cpu => {
            let ([heads, head_dim], blocks) =
                (call.sizes([H, D])?, Blocks::new(documents, block_size));
            cpu::forward(x.as_slice()?, &blocks, heads * head_dim, pooled.as_mut_slice()?);
        }
    }
    Ok(pooled)
}

/// Gradient of [`mean_pool_fwd`]: `dx[t, h, d] += dpooled[c, h, d] / (tokens of block c)` for every
/// t of c.
///
/// # Shapes
/// `dpooled` `[C, H, D]`, `dx` `[B, T, H, D]`; `documents` over N = B * T tokens.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; products and sums in `f32`.
///
/// # Edge cases
/// No tokens: nothing is added.
///
/// # Errors
/// As [`mean_pool_fwd`].
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU: elements are independent.
///
/// # Source
/// As [`mean_pool_fwd`].
pub fn mean_pool_bwd(
    dpooled: &Tensor,
    documents: &Documents,
    block_size: usize,
    dx: &mut Tensor,
) -> Result<()> {
    let call = Args::new("mean_pool_bwd")
        .positive("block_size", block_size)
        .size("block_size", C, documents.blocks(block_size))
        .act("dpooled", dpooled, BLOCK_KEYS)
        .act("dx", dx, [B, T, H, D])
        .documents(documents)
        .check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::backward(gpu, dpooled, documents, block_size, dx),
        Device::Cpu => {
            let ([heads, head_dim], blocks) =
                (call.sizes([H, D])?, Blocks::new(documents, block_size));
            cpu::backward(dpooled.as_slice()?, &blocks, heads * head_dim, dx.as_mut_slice()?);
            Ok(())
        }
    }
}
