//! Attention in which every query sees a range of consecutive keys of its document: full, window
//! and compression attention are this kernel with different ranges.

mod cpu;
pub(crate) mod cuda;
mod visibility;

pub(super) use visibility::Visibility;

use super::shape::{AttentionGrads, AttentionOutput, AttentionShape};
use crate::checks::check_shape;
use crate::{Device, Documents, Result, Tensor};

/// A checked call.
pub(super) struct TiledCall<'a> {
    /// Name of the op.
    op: &'static str,
    /// `[B, T, HQ, D]`.
    q: &'a Tensor,
    /// `[.., H, D]`: a row per token, or per block under [`Visibility::Blocks`].
    k: &'a Tensor,
    /// As `k`.
    v: &'a Tensor,
    documents: &'a Documents,
    visibility: Visibility,
    softmax_scale: f32,
    shape: AttentionShape,
}

impl<'a> TiledCall<'a> {
    /// Checks the arguments of an op.
    pub(super) fn new(
        op: &'static str,
        q: &'a Tensor,
        k: &'a Tensor,
        v: &'a Tensor,
        documents: &'a Documents,
        visibility: Visibility,
        softmax_scale: f32,
    ) -> Result<Self> {
        let shape = match visibility {
            Visibility::Tokens { .. } => AttentionShape::new(op, q, k, v, documents)?,
            Visibility::Blocks { block_size } => {
                check_shape(op, "v_pooled", v, k.shape())?;
                AttentionShape::of_query_and_pooled(op, q, k, documents, block_size)?
            }
        };
        Ok(Self { op, q, k, v, documents, visibility, softmax_scale, shape })
    }
}

/// Computes the attention.
pub(super) fn tiled_fwd(call: &TiledCall<'_>) -> Result<AttentionOutput> {
    let mut output = AttentionOutput::for_output(call.q, call.shape);
    match call.q.device() {
        Device::Cuda(gpu) => cuda::forward(&gpu, call, &mut output)?,
        Device::Cpu => cpu::forward(call, &mut output),
    }
    Ok(output)
}

/// Checks the arguments that a backward takes beside the inputs, and adds to the gradients.
pub(super) fn tiled_bwd(
    call: &TiledCall<'_>,
    dout: &Tensor,
    output: &AttentionOutput,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let op = call.op;
    check_shape(op, "dout", dout, &call.shape.q_shape())?;
    check_shape(op, "output.out", &output.out, &call.shape.q_shape())?;
    check_shape(op, "output.lse", &output.lse, &call.shape.lse_shape())?;
    check_shape(op, "grads.dq", &grads.dq, &call.shape.q_shape())?;
    check_shape(op, "grads.dk", &grads.dk, call.k.shape())?;
    check_shape(op, "grads.dv", &grads.dv, call.v.shape())?;
    match call.q.device() {
        Device::Cuda(gpu) => cuda::backward(&gpu, call, dout, output, grads)?,
        Device::Cpu => cpu::backward(call, dout, output, grads),
    }
    Ok(())
}
