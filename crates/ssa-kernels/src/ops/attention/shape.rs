//! The arguments and results that all attention ops share.

use crate::contract::{Args, Axis, B, C, Checked, D, H, HQ, T};
use crate::{DType, Documents, Result, Tensor};

/// The inputs of an attention op.
#[derive(Clone, Copy, Debug)]
pub struct AttentionCall<'a> {
    /// Queries `[B, T, HQ, D]`.
    pub q: &'a Tensor,
    /// Keys: `[B, T, H, D]`, or means of blocks `[C, H, D]` in compression attention.
    pub k: &'a Tensor,
    /// Values, in the shape of the keys.
    pub v: &'a Tensor,
    /// The documents that bound attention, over N = B * T tokens.
    pub documents: &'a Documents,
    /// Factor of every score, usually `D^-0.5`.
    pub softmax_scale: f32,
}

impl<'a> AttentionCall<'a> {
    /// The table of a call with keys and values for every token.
    pub(crate) fn args(&self, op: &'static str) -> Args<'a> {
        Args::new(op)
            .act("q", self.q, [B, T, HQ, D])
            .act("k", self.k, TOKEN_KEYS)
            .act("v", self.v, TOKEN_KEYS)
            .documents(self.documents)
    }

    /// The table of a call with keys and values for every block of `block_size` tokens.
    pub(crate) fn pooled_args(&self, op: &'static str, block_size: usize) -> Args<'a> {
        Args::new(op)
            .act("q", self.q, [B, T, HQ, D])
            .documents(self.documents)
            .positive("block_size", block_size)
            .size("block_size", C, self.documents.blocks(block_size))
            .act("k", self.k, BLOCK_KEYS)
            .act("v", self.v, BLOCK_KEYS)
    }
}

/// The axes of keys and values per token.
pub(crate) const TOKEN_KEYS: &[Axis] = &[B, T, H, D];
/// The axes of keys and values per block.
pub(crate) const BLOCK_KEYS: &[Axis] = &[C, H, D];

/// What an attention forward returns and its backward needs.
#[derive(Debug)]
pub struct AttentionOutput {
    /// Attention output `[B, T, HQ, D]`, before any gate.
    pub out: Tensor,
    /// Natural logarithm of the softmax denominator of every query, `[B, T, HQ]`, in `f32`;
    /// negative infinity where a query sees no key (its output is zero).
    pub lse: Tensor,
}

impl AttentionOutput {
    /// New tensors for the results of a call.
    pub(crate) fn for_output(q: &Tensor, shape: AttentionShape) -> Result<Self> {
        Ok(Self {
            out: Tensor::for_output_like(q, shape.q_shape())?,
            lse: Tensor::for_output_on(&q.device(), DType::F32, shape.lse_shape())?,
        })
    }
}

/// Gradients of the inputs of attention. Backward functions add to them.
#[derive(Debug)]
pub struct AttentionGrads {
    /// Gradient of the queries, in their shape.
    pub dq: Tensor,
    /// Gradient of the keys, in their shape.
    pub dk: Tensor,
    /// Gradient of the values, in their shape.
    pub dv: Tensor,
}

impl AttentionGrads {
    /// Zero gradients for the given inputs.
    ///
    /// # Errors
    /// As [`Tensor::zeros_like`].
    pub fn zeros_like(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Self> {
        let [dq, dk, dv] = [q, k, v].map(Tensor::zeros_like);
        Ok(Self { dq: dq?, dk: dk?, dv: dv? })
    }
}

/// Adds to the table of a call what every backward takes in addition to the inputs; `keys` are the
/// axes of keys and values.
pub(crate) fn backward_args<'a>(
    args: Args<'a>,
    keys: &[Axis],
    dout: &'a Tensor,
    output: &'a AttentionOutput,
    grads: &'a AttentionGrads,
) -> Args<'a> {
    args.act("dout", dout, [B, T, HQ, D])
        .act("output.out", &output.out, [B, T, HQ, D])
        .f32("output.lse", &output.lse, [B, T, HQ])
        .act("grads.dq", &grads.dq, [B, T, HQ, D])
        .act("grads.dk", &grads.dk, keys)
        .act("grads.dv", &grads.dv, keys)
}

/// The sizes of a checked attention call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttentionShape {
    /// B.
    pub(crate) batch: usize,
    /// T.
    pub(crate) tokens: usize,
    /// HQ.
    pub(crate) q_heads: usize,
    /// H.
    pub(crate) kv_heads: usize,
    /// D.
    pub(crate) head_dim: usize,
}

impl AttentionShape {
    /// The sizes of a call.
    pub(crate) fn of(call: &Checked) -> Result<Self> {
        let [batch, tokens, q_heads, kv_heads, head_dim] = call.sizes([B, T, HQ, H, D])?;
        Ok(Self { batch, tokens, q_heads, kv_heads, head_dim })
    }

    /// N = B * T.
    pub(crate) fn total_tokens(&self) -> usize {
        self.batch * self.tokens
    }

    /// G = HQ / H.
    pub(crate) fn group(&self) -> usize {
        self.q_heads / self.kv_heads
    }

    /// Sizes of the output and of q.
    pub(crate) fn q_shape(&self) -> [usize; 4] {
        [self.batch, self.tokens, self.q_heads, self.head_dim]
    }

    /// Sizes of `lse` and of a gate.
    pub(crate) fn lse_shape(&self) -> [usize; 3] {
        [self.batch, self.tokens, self.q_heads]
    }
}
