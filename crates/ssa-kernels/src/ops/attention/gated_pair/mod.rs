//! Full and sparse attention of one layer with the gate that they share: the output that feeds the
//! next layer, and the alignment loss between the two, in one pass each way.
//!
//! The same as gates ([`gate`](crate::ops::gate)) followed by [`alignment`](super::alignment): the
//! CPU runs these. On a GPU the passes over memory between the two would take more time than the
//! rest.

pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use super::AttentionMode;
use super::alignment::{AlignmentOptions, alignment_bwd, alignment_fwd, valid_args};
use crate::contract::{Args, B, D, HQ, T};
use crate::ops::gate::{gate_apply_bwd, gate_apply_fwd};
use crate::{Device, Result, Scalar, Tensor};

/// The two outputs and their gate.
#[derive(Clone, Copy, Debug)]
pub struct GatedPair<'a> {
    /// Output of full attention `[B, T, HQ, D]`.
    pub full: &'a Tensor,
    /// Output of sparse attention `[B, T, HQ, D]`.
    pub sparse: &'a Tensor,
    /// The gate of both `[B, T, HQ]`.
    pub gate: &'a Tensor,
    /// The one whose gated output feeds the next layer.
    pub chosen: AttentionMode,
}

/// What the alignment loss compares.
#[derive(Clone, Copy, Debug)]
pub struct PairAlignment<'a> {
    /// Distance and direction.
    pub options: &'a AlignmentOptions,
    /// Compare outputs after the gate, or before it.
    pub gated: bool,
    /// Which tokens count; `None` means all.
    pub valid: Option<&'a [bool]>,
}

/// The gradients that the backward of a pair adds to.
#[derive(Debug)]
pub struct GatedPairGrads<'a> {
    /// Of the full output `[B, T, HQ, D]`.
    pub dfull: &'a mut Tensor,
    /// Of the sparse output `[B, T, HQ, D]`.
    pub dsparse: &'a mut Tensor,
    /// Of the gate `[B, T, HQ]`.
    pub dgate: &'a mut Tensor,
}

/// `gate * (full or sparse)`, and the sum of [`alignment_fwd`] between the outputs, after the gate
/// or before it.
///
/// # Shapes
/// `pair.full` and `pair.sparse` `[B, T, HQ, D]`, `pair.gate` `[B, T, HQ]`; `alignment.valid`, if
/// given, has one entry for each of the N = B * T tokens. Returns `[B, T, HQ, D]` and a number.
///
/// # Dtypes
/// `f32`; differences and their sum are `f64`. On a GPU outputs are `bf16` and the gate is `f32`;
/// gated values are compared in `f32` before they are rounded, sums of eight distances are `f32`,
/// and the sum over those is `f64`.
///
/// # Edge cases
/// No tokens: an empty result and 0. Tokens that are not valid do not count in the sum; their
/// output is computed.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) if an argument does not have this shape
/// or type, or is on another device.
///
/// # Determinism
/// Bitwise reproducible for any number of threads, and on a GPU.
///
/// # Source
/// The released attention module; the alignment loss of the SSA paper (arXiv 2511.20102).
pub fn gated_pair_fwd(
    pair: &GatedPair<'_>,
    alignment: &PairAlignment<'_>,
) -> Result<(Tensor, Scalar)> {
    let call = args("gated_pair_fwd", pair, alignment).check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::forward(gpu, pair, alignment),
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
/// With `a` the gradient of `scale` times the loss at the compared values (see [`alignment_bwd`])
/// and `d` = `dmixed` for the chosen output, 0 for the other: `dout += gate (d + a)` and `dgate +=
/// sum_d (d + a) out` if gated values are compared, `dout += gate d + a` and `dgate += sum_d d out`
/// otherwise; `dgate` is the sum over both.
///
/// # Shapes
/// As [`gated_pair_fwd`]; `dmixed`, `grads.dfull` and `grads.dsparse` `[B, T, HQ, D]`,
/// `grads.dgate` `[B, T, HQ]`.
///
/// # Dtypes
/// As [`gated_pair_fwd`]; on a GPU `dmixed`, `dfull` and `dsparse` are `bf16`, `dgate` is `f32`.
///
/// # Edge cases
/// A token that is not valid has no gradient from the alignment loss.
///
/// # Errors
/// As [`gated_pair_fwd`].
///
/// # Determinism
/// As [`gated_pair_fwd`].
///
/// # Source
/// As [`gated_pair_fwd`].
pub fn gated_pair_bwd(
    dmixed: &Tensor,
    pair: &GatedPair<'_>,
    alignment: &PairAlignment<'_>,
    scale: f32,
    grads: GatedPairGrads<'_>,
) -> Result<()> {
    let call = args("gated_pair_bwd", pair, alignment)
        .act("dmixed", dmixed, [B, T, HQ, D])
        .act("grads.dfull", grads.dfull, [B, T, HQ, D])
        .act("grads.dsparse", grads.dsparse, [B, T, HQ, D])
        .f32("grads.dgate", grads.dgate, [B, T, HQ])
        .check()?;
    match call.device() {
        Device::Cuda(gpu) => cuda::backward(gpu, dmixed, pair, alignment, scale, grads),
        Device::Cpu => backward_by_parts(dmixed, pair, alignment, scale, grads),
    }
}

/// The rows of the table that both directions share.
fn args<'a>(op: &'static str, pair: &GatedPair<'a>, alignment: &PairAlignment<'_>) -> Args<'a> {
    let args = Args::new(op)
        .act("pair.full", pair.full, [B, T, HQ, D])
        .act("pair.sparse", pair.sparse, [B, T, HQ, D])
        .f32("pair.gate", pair.gate, [B, T, HQ]);
    valid_args(args, alignment.valid)
}

/// The two gated outputs.
fn gated_outputs(pair: &GatedPair<'_>) -> Result<[Tensor; 2]> {
    Ok([gate_apply_fwd(pair.full, pair.gate)?, gate_apply_fwd(pair.sparse, pair.gate)?])
}

/// The gradients by the ops that this one fuses.
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
        AttentionMode::Full => [dmixed.try_clone()?, Tensor::zeros_like(dmixed)?],
        AttentionMode::Sparse => [Tensor::zeros_like(dmixed)?, dmixed.try_clone()?],
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
