//! Full and sparse attention of one layer behind the gate they share: the output of the one that
//! goes on, and the alignment loss between the two, in one pass each way.
//!
//! The same as gates ([`gate`](crate::ops::gate)) and [`alignment`](super::alignment) one after the
//! other, which is what the CPU does. A GPU would spend more time on the passes over memory in
//! between than on anything else in them.

pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use super::AttentionMode;
use super::alignment::{AlignmentOptions, alignment_bwd, alignment_fwd, check_valid};
use crate::checks::{axes, check_positive, check_shape, dtypes, same_device};
use crate::ops::gate::{gate_apply_bwd, gate_apply_fwd};
use crate::{DType, Device, Result, Scalar, Tensor};

/// The two outputs and their gate.
#[derive(Clone, Copy, Debug)]
pub struct GatedPair<'a> {
    /// Output of full attention `[B, T, HQ, D]`.
    pub full: &'a Tensor,
    /// Output of sparse attention `[B, T, HQ, D]`.
    pub sparse: &'a Tensor,
    /// The gate of both `[B, T, HQ]`.
    pub gate: &'a Tensor,
    /// Whose gated output feeds the next layer.
    pub chosen: AttentionMode,
}

/// What the alignment loss compares.
#[derive(Clone, Copy, Debug)]
pub struct PairAlignment<'a> {
    /// Distance and direction.
    pub options: &'a AlignmentOptions,
    /// Compare gated outputs, or the bare ones.
    pub gated: bool,
    /// Which tokens count; None means all.
    pub valid: Option<&'a [bool]>,
}

/// Where the gradients of a pair are added.
#[derive(Debug)]
pub struct GatedPairGrads<'a> {
    /// Of the full output `[B, T, HQ, D]`.
    pub dfull: &'a mut Tensor,
    /// Of the sparse output `[B, T, HQ, D]`.
    pub dsparse: &'a mut Tensor,
    /// Of the gate `[B, T, HQ]`.
    pub dgate: &'a mut Tensor,
}

/// `gate * (full or sparse)`, and the sum of [`alignment_fwd`] between the outputs, gated or bare.
///
/// # Shapes
/// As the fields of [`GatedPair`] say; returns `[B, T, HQ, D]` and a number.
///
/// # Dtypes
/// `f32`; differences and their sum `f64`. On a GPU outputs are `bf16` and the gate `f32`; gated
/// values are compared in `f32` before they are rounded, sums of eight distances are `f32`, the sum
/// over those `f64`.
///
/// # Edge cases
/// No tokens: an empty result and 0. Tokens that are not valid do not count in the sum; their
/// output is computed.
///
/// # Errors
/// [`KernelError`](crate::KernelError) if the shapes do not fit, `valid` has another length, or the
/// tensors do not lie on one device.
///
/// # Determinism
/// Bitwise reproducible, whatever the number of threads, and on a GPU.
///
/// # Source
/// The released attention module; the paper's alignment loss.
pub fn gated_pair_fwd(
    pair: &GatedPair<'_>,
    alignment: &PairAlignment<'_>,
) -> Result<(Tensor, Scalar)> {
    check("gated_pair_fwd", pair, alignment)?;
    match pair.gate.device() {
        Device::Cuda(gpu) => cuda::forward(&gpu, pair, alignment),
        Device::Cpu => {
            let gated = gated_outputs(pair)?;
            let compared =
                if alignment.gated { [&gated[0], &gated[1]] } else { [pair.full, pair.sparse] };
            let sum = alignment_fwd(compared[0], compared[1], alignment.valid, alignment.options)?;
            let [full, sparse] = gated;
            Ok((if pair.chosen == AttentionMode::Full { full } else { sparse }, sum))
        }
    }
}

/// Gradients of [`gated_pair_fwd`] for `dmixed`, the gradient of its output, and `scale`, that of
/// the alignment sum.
///
/// With `a` the gradient of `scale` times the loss at the values compared (see [`alignment_bwd`])
/// and `d` = `dmixed` for the one that goes on, 0 for the other: `dout += gate (d + a)` and `dgate
/// += sum_d (d + a) out` if gated values are compared, `dout += gate d + a` and `dgate += sum_d d
/// out` if bare ones are; `dgate` is the sum over both.
///
/// # Shapes
/// `dmixed` and the gradients of the outputs `[B, T, HQ, D]`, `dgate` `[B, T, HQ]`.
///
/// # Dtypes
/// As [`gated_pair_fwd`]; on a GPU `dmixed`, `dfull` and `dsparse` are `bf16`, `dgate` is `f32`.
///
/// # Edge cases
/// A token that is not valid has no gradient from the alignment loss.
///
/// # Errors
/// As [`gated_pair_fwd`], and if a gradient does not fit.
///
/// # Determinism
/// As [`gated_pair_fwd`].
///
/// # Source
/// As the forward.
pub fn gated_pair_bwd(
    dmixed: &Tensor,
    pair: &GatedPair<'_>,
    alignment: &PairAlignment<'_>,
    scale: f32,
    grads: GatedPairGrads<'_>,
) -> Result<()> {
    const OP: &str = "gated_pair_bwd";
    check(OP, pair, alignment)?;
    check_shape(OP, "dmixed", dmixed, pair.full.shape())?;
    check_shape(OP, "dfull", grads.dfull, pair.full.shape())?;
    check_shape(OP, "dsparse", grads.dsparse, pair.full.shape())?;
    check_shape(OP, "dgate", grads.dgate, pair.gate.shape())?;
    let outputs = [("dmixed", dmixed), ("dfull", &*grads.dfull), ("dsparse", &*grads.dsparse)];
    same_device(OP, pair.gate, &outputs)?;
    same_device(OP, pair.gate, &[("dgate", grads.dgate)])?;
    match pair.gate.device() {
        Device::Cuda(gpu) => {
            dtypes(OP, &outputs.map(|(name, tensor)| (name, tensor, DType::Bf16)))?;
            dtypes(OP, &[("dgate", grads.dgate, DType::F32)])?;
            cuda::backward(&gpu, dmixed, pair, alignment, scale, grads)
        }
        Device::Cpu => backward_by_parts(dmixed, pair, alignment, scale, grads),
    }
}

/// The two gated outputs.
fn gated_outputs(pair: &GatedPair<'_>) -> Result<[Tensor; 2]> {
    Ok([gate_apply_fwd(pair.full, pair.gate)?, gate_apply_fwd(pair.sparse, pair.gate)?])
}

/// The gradients by the ops that this one joins.
fn backward_by_parts(
    dmixed: &Tensor,
    pair: &GatedPair<'_>,
    alignment: &PairAlignment<'_>,
    scale: f32,
    grads: GatedPairGrads<'_>,
) -> Result<()> {
    let GatedPairGrads { dfull, dsparse, dgate } = grads;
    let (valid, options) = (alignment.valid, alignment.options);
    let mut dgated = match pair.chosen {
        AttentionMode::Full => [dmixed.clone(), Tensor::zeros_like(dmixed)],
        AttentionMode::Sparse => [Tensor::zeros_like(dmixed), dmixed.clone()],
    };
    let [dgated_full, dgated_sparse] = &mut dgated;
    if alignment.gated {
        let [full, sparse] = gated_outputs(pair)?;
        alignment_bwd(&full, &sparse, valid, options, scale, dgated_full, dgated_sparse)?;
    } else {
        alignment_bwd(pair.full, pair.sparse, valid, options, scale, dfull, dsparse)?;
    }
    gate_apply_bwd(dgated_full, pair.full, pair.gate, dfull, dgate)?;
    gate_apply_bwd(dgated_sparse, pair.sparse, pair.gate, dsparse, dgate)
}

fn check(op: &'static str, pair: &GatedPair<'_>, alignment: &PairAlignment<'_>) -> Result<()> {
    let [batch, tokens, heads, head_dim] = axes(op, "full", pair.full, "[B, T, HQ, D]")?;
    check_positive(op, "head_dim", head_dim)?;
    check_shape(op, "sparse", pair.sparse, pair.full.shape())?;
    check_shape(op, "gate", pair.gate, &[batch, tokens, heads])?;
    same_device(op, pair.full, &[("sparse", pair.sparse), ("gate", pair.gate)])?;
    let dtype = pair.full.device().dtype();
    dtypes(
        op,
        &[
            ("full", pair.full, dtype),
            ("sparse", pair.sparse, dtype),
            ("gate", pair.gate, DType::F32),
        ],
    )?;
    check_valid(op, alignment.valid, batch * tokens)
}
