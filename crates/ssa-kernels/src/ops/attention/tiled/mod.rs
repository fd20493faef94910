//! Attention in which every query sees a range of consecutive keys of its document: full, window
//! and compression attention are this kernel with different ranges.
//!
//! The forward pass on a GPU takes any [`Sequences`]: packed documents have the queries of all
//! their keys, a chunk of a prompt those of the last ones ([`SequenceQueries`]).

mod cpu;
pub(crate) mod cuda;
mod visibility;

pub(crate) use visibility::Visibility;

use super::shape::{
    AttentionCall, AttentionGrads, AttentionOutput, AttentionShape, BLOCK_KEYS, TOKEN_KEYS,
    backward_args,
};
use crate::contract::{Args, Axis};
use crate::cuda::Gpu;
use crate::{Device, Result, Sequences, Tensor};

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
    /// Packed documents, but for forward passes on a GPU.
    sequences: &'a Sequences,
    visibility: Visibility,
    softmax_scale: f32,
    shape: AttentionShape,
}

impl<'a> TiledAttention<'a> {
    fn new(
        op: &'static str,
        call: &AttentionCall<'a>,
        sequences: &'a Sequences,
        visibility: Visibility,
        shape: AttentionShape,
    ) -> Self {
        let &AttentionCall { q, k, v, softmax_scale, .. } = call;
        Self { op, q, k, v, sequences, visibility, softmax_scale, shape }
    }
}

/// The queries of some sequences on a GPU, checked, with the keys and values of whole sequences.
pub(super) struct SequenceQueries<'a> {
    pub(super) op: &'static str,
    /// `[B, T, HQ, D]`.
    pub(super) q: &'a Tensor,
    /// Keys and values `[.., H, D]`: those of the first sequence, then those of the second, and so
    /// on.
    pub(super) kv: [&'a Tensor; 2],
    pub(super) sequences: &'a Sequences,
    /// The last keys that a query sees.
    pub(super) window_size: usize,
    pub(super) softmax_scale: f32,
    pub(super) shape: AttentionShape,
}

impl SequenceQueries<'_> {
    /// Computes the attention.
    pub(super) fn attend(&self, gpu: &Gpu, output: &mut AttentionOutput) -> Result<()> {
        let &Self { op, q, kv: [k, v], sequences, window_size, softmax_scale, shape } = self;
        let visibility = Visibility::Tokens { window_size };
        let call = TiledAttention { op, q, k, v, sequences, visibility, softmax_scale, shape };
        cuda::forward(gpu, &call, output)
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
    let sequences = Sequences::packed(call.documents);
    let call = TiledAttention::new(op, call, &sequences, visibility, shape);
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
    let sequences = Sequences::packed(call.documents);
    let shape = AttentionShape::of(&checked)?;
    let call = TiledAttention::new(op, call, &sequences, visibility, shape);
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
