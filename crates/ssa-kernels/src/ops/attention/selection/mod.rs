//! Block selection: which blocks of keys each token attends to. The README of this folder explains
//! the algorithm.

mod block_indices;
mod budget;
mod cpu;
pub(crate) mod cuda;
pub mod reference;
mod scores;
#[cfg(test)]
mod tests;
mod top;

pub use block_indices::{BlockIndices, HostBlockIndices};
pub use budget::{InvalidBudget, SparseBudget};

pub(crate) use cpu::Importance;
pub(crate) use top::Selector;

use super::pooling::mean_pool_f32_fwd;
use super::shape::{AttentionShape, BLOCK_KEYS, TOKEN_KEYS};
use crate::contract::{Args, B, C, D, HQ, T};
use crate::{Device, Documents, KernelError, Result, Tensor};

/// Which blocks count as the most important ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectionRule {
    /// The `block_counts` most important ones.
    Exact,
    /// What the released kernel computes, for parity with checkpoints trained with it. It equals
    /// [`Self::Exact`] only while `block_counts` rounded up to a power of two is at most half of
    /// `block_size`, or within the first `block_size` blocks of a document when `block_counts` is a
    /// power of two.
    Reference,
}

ssa_names::names!(SelectionRule: "selection rule" { Exact = "exact", Reference = "reference" });

/// How many blocks a token attends to, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectionOptions {
    /// Size and number of the blocks.
    pub budget: SparseBudget,
    /// The rule that chooses them.
    pub rule: SelectionRule,
}

impl SelectionOptions {
    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        let (block_size, block_counts) = (self.budget.block_size(), self.budget.block_counts());
        if self.rule == SelectionRule::Reference {
            if block_size < 2 || !block_size.is_power_of_two() {
                let expected =
                    "a power of two, at least 2, as the released kernel needs (or the exact rule)";
                return Err(KernelError::value(op, "block_size", expected, block_size));
            }
            if block_counts > block_size {
                let expected = format!(
                    "at most the block size of {block_size}, all that the released kernel can \
                     select (or the exact rule)"
                );
                return Err(KernelError::value(op, "block_counts", expected, block_counts));
            }
        }
        Ok(())
    }

    /// Blocks the rule selects where there are enough.
    pub(crate) fn selected_blocks(&self) -> usize {
        let block_counts = self.budget.block_counts();
        match self.rule {
            SelectionRule::Exact => block_counts,
            SelectionRule::Reference => block_counts.next_power_of_two(),
        }
    }
}

/// A checked call.
struct SelectionCall<'a> {
    q: &'a Tensor,
    k_pooled: &'a Tensor,
    documents: &'a Documents,
    options: &'a SelectionOptions,
    shape: AttentionShape,
    /// Slots of a row of the result.
    slots: usize,
    softmax_scale: f32,
}

/// Selects blocks for every token and key/value head by the pooled keys:
///
/// ```text
/// s_hc  = softmax_scale * q_h . k_pooled_c   for the G heads h of the group
/// lse_h = ln sum_c exp(s_hc)                 over complete blocks, c < floor((t + 1) / block_size)
/// I_c   = sum_h exp(s_hc - lse_h)            for earlier blocks, c < floor(t / block_size)
/// ```
///
/// The token's own block floor(t / block_size) and the `block_counts - 1` others with the largest I
/// are selected; ties go to the lower block. [`SelectionRule::Reference`] departs from "largest" as
/// the released kernel does.
///
/// # Shapes
/// `q` `[B, T, HQ, D]`, `k_pooled` `[C, H, D]` from [`mean_pool_f32_fwd`], H a divisor of HQ;
/// `documents` over N = B * T tokens. Returns indices `[B, T, H, K]`: K is `block_counts` (rounded
/// up to a power of two by the reference rule), but no more than the blocks of the longest
/// document.
///
/// # Dtypes
/// `f32`, accumulated in `f32`: importances that differ by rounding only may be ranked either way.
/// On a GPU `q` is `bf16`, and `k_pooled` is `f32` (used as the sum of two `bf16`, up to 2^-17 of
/// it) or `bf16`.
///
/// # Edge cases
/// Fewer blocks than `block_counts`: all of them. At the last token of a block, its own block is
/// complete and counts in lse. No block after the token is ever selected. No tokens: no indices.
///
/// # Errors
/// [`KernelError::Argument`] if an argument does not have this shape or type or is on another
/// device, or if the reference rule gets a `block_size`
/// that is not a power of two or a `block_counts` above `block_size`; on a GPU also if D is above
/// 256.
///
/// # Determinism
/// Bitwise reproducible for any number of threads: one thread scores every token. On a GPU bitwise
/// reproducible: shapes decide the order of the sums. Equal scores give equal importances, and so
/// the lower block, on both.
///
/// # Source
/// Section 3 of the SSA paper (arXiv 2511.20102) and its released top-k kernel; no gradient passes
/// through.
pub fn select_blocks(
    q: &Tensor,
    k_pooled: &Tensor,
    documents: &Documents,
    options: &SelectionOptions,
    softmax_scale: f32,
) -> Result<BlockIndices> {
    const OP: &str = "select_blocks";
    options.check(OP)?;
    let block_size = options.budget.block_size();
    let checked = Args::new(OP)
        .act("q", q, [B, T, HQ, D])
        .documents(documents)
        .size("block_size", C, documents.blocks(block_size))
        .float("k_pooled", k_pooled, BLOCK_KEYS)
        .check()?;
    let shape = AttentionShape::of(&checked)?;
    let slots = options.selected_blocks().min(documents.longest().max(1).div_ceil(block_size));
    let call = SelectionCall { q, k_pooled, documents, options, shape, slots, softmax_scale };
    match checked.device() {
        Device::Cuda(gpu) => cuda::select(OP, gpu, &call),
        Device::Cpu => {
            let indices = cpu::select(&call)?;
            BlockIndices::from_vec(indices, documents, shape.kv_heads, block_size, slots)
        }
    }
}

/// [`select_blocks`] by the means of the blocks of `k`: what sparse attention over `q` and `k`
/// selects.
///
/// # Shapes
/// `q` `[B, T, HQ, D]`, `k` `[B, T, H, D]`, H a divisor of HQ; `documents` over N = B * T tokens.
/// Returns indices as [`select_blocks`].
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU; the means are `f32` on every device.
///
/// # Edge cases
/// As [`select_blocks`].
///
/// # Errors
/// As [`select_blocks`].
///
/// # Determinism
/// As [`select_blocks`].
///
/// # Source
/// As [`select_blocks`].
pub fn select_by_means(
    q: &Tensor,
    k: &Tensor,
    documents: &Documents,
    options: &SelectionOptions,
    softmax_scale: f32,
) -> Result<BlockIndices> {
    const OP: &str = "select_by_means";
    options.check(OP)?;
    Args::new(OP)
        .act("q", q, [B, T, HQ, D])
        .act("k", k, TOKEN_KEYS)
        .documents(documents)
        .check()?;
    let k_pooled = mean_pool_f32_fwd(k, documents, options.budget.block_size())?;
    select_blocks(q, &k_pooled, documents, options, softmax_scale)
}
