//! Attention in which every query sees a range of consecutive keys of its document: full, window
//! and compression attention are this kernel with different ranges.

mod cpu;
pub(crate) mod cuda;
mod visibility;

pub(crate) use visibility::Visibility;

use super::shape::{
    AttentionCall, AttentionGrads, AttentionOutput, AttentionShape, BLOCK_KEYS, TOKEN_KEYS,
    backward_args,
};
use crate::contract::{Args, Axis};
use crate::{Device, Documents, Result, Tensor};

/// A checked call of attention over ranges of keys.
pub(super) struct TiledAttention<'a> {
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

impl<'a> TiledAttention<'a> {
    fn new(
        op: &'static str,
        call: &AttentionCall<'a>,
        visibility: Visibility,
        shape: AttentionShape,
    ) -> Self {
        let &AttentionCall { q, k, v, documents, softmax_scale } = call;
        Self { op, q, k, v, documents, visibility, softmax_scale, shape }
    }
}

/// The table of the inputs, and the axes of keys and values.
fn args<'a>(
    op: &'static str,
    call: &AttentionCall<'a>,
    visibility: Visibility,
) -> (Args<'a>, &'static [Axis]) {
    match visibility {
        Visibility::Tokens { window_size } => {
            (call.args(op).positive("window_size", window_size), TOKEN_KEYS)
        }
        Visibility::Blocks { block_size } => (call.pooled_args(op, block_size), BLOCK_KEYS),
    }
}

/// Checks the arguments and computes the attention.
pub(super) fn tiled_fwd(
    op: &'static str,
    call: &AttentionCall<'_>,
    visibility: Visibility,
) -> Result<AttentionOutput> {
    let checked = args(op, call, visibility).0.check()?;
    let shape = AttentionShape::of(&checked)?;
    let call = TiledAttention::new(op, call, visibility, shape);
    let mut output = AttentionOutput::for_output(call.q, shape)?;
    match checked.device() {
        Device::Cuda(gpu) => cuda::forward(gpu, &call, &mut output)?,
        Device::Cpu => {
            let (out, lse) = (output.out.as_mut_slice()?, output.lse.as_mut_slice()?);
            cpu::forward(&cpu::TiledSlices::new(&call)?, out, lse);
        }
    }
    Ok(output)
}

/// Checks the arguments and adds to the gradients.
pub(super) fn tiled_bwd(
    op: &'static str,
    dout: &Tensor,
    call: &AttentionCall<'_>,
    visibility: Visibility,
    output: &AttentionOutput,
    grads: &mut AttentionGrads,
) -> Result<()> {
    let (args, keys) = args(op, call, visibility);
    let checked = backward_args(args, keys, dout, output, grads).check()?;
    let call = TiledAttention::new(op, call, visibility, AttentionShape::of(&checked)?);
    match checked.device() {
        Device::Cuda(gpu) => cuda::backward(gpu, &call, dout, output, grads),
        Device::Cpu => {
            let upstream = cpu::Upstream {
                dout: dout.as_slice()?,
                out: output.out.as_slice()?,
                lse: output.lse.as_slice()?,
            };
            let AttentionGrads { dq, dk, dv } = grads;
            let grads = [dq.as_mut_slice()?, dk.as_mut_slice()?, dv.as_mut_slice()?];
            cpu::backward(&cpu::TiledSlices::new(&call)?, upstream, grads)?;
            Ok(())
        }
    }
}
