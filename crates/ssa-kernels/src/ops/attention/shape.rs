//! The arguments and results that all attention ops share.

use crate::checks::{axes, check_positive, check_shape};
use crate::{DType, Documents, KernelError, Result, Tensor};

/// What an attention forward returns and its backward needs.
#[derive(Clone, Debug)]
pub struct AttentionOutput {
    /// Attention output `[B, T, HQ, D]`, before any gate.
    pub out: Tensor,
    /// Natural logarithm of the softmax denominator of every query, `[B, T, HQ]`; negative infinity
    /// where a query sees no key (its output is zero).
    pub lse: Tensor,
}

impl AttentionOutput {
    /// The place of the outputs for queries `q`.
    pub(crate) fn for_output(q: &Tensor, shape: AttentionShape) -> Self {
        Self {
            out: Tensor::for_output_like(q, shape.q_shape()),
            lse: Tensor::for_output_on(&q.device(), DType::F32, shape.lse_shape()),
        }
    }
}

/// Gradients of the inputs of attention. Backward functions add to them.
#[derive(Clone, Debug)]
pub struct AttentionGrads {
    /// `[B, T, HQ, D]`.
    pub dq: Tensor,
    /// `[B, T, H, D]`.
    pub dk: Tensor,
    /// `[B, T, H, D]`.
    pub dv: Tensor,
}

impl AttentionGrads {
    /// Zero gradients for the given inputs.
    pub fn zeros_like(q: &Tensor, k: &Tensor, v: &Tensor) -> Self {
        Self { dq: Tensor::zeros_like(q), dk: Tensor::zeros_like(k), dv: Tensor::zeros_like(v) }
    }
}

/// The checked sizes of an attention call.
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
    /// Checks q `[B, T, HQ, D]`, k and v `[B, T, H, D]` against each other and the documents.
    pub(crate) fn new(
        op: &'static str,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        documents: &Documents,
    ) -> Result<Self> {
        let shape = Self::of_query_and_key(op, q, k, documents)?;
        if v.shape() != k.shape() {
            return Err(KernelError::shape(op, "v", format!("{:?}", k.shape()), v.shape()));
        }
        Ok(shape)
    }

    /// Checks q and k alone, for ops that use no values.
    pub(crate) fn of_query_and_key(
        op: &'static str,
        q: &Tensor,
        k: &Tensor,
        documents: &Documents,
    ) -> Result<Self> {
        let [batch, tokens, q_heads, head_dim] = axes(op, "q", q, "[B, T, HQ, D]")?;
        let [_, _, kv_heads, _] = axes(op, "k", k, "[B, T, H, D]")?;
        if k.shape() != [batch, tokens, kv_heads, head_dim] {
            let expected = format!("[{batch}, {tokens}, H, {head_dim}]");
            return Err(KernelError::shape(op, "k", expected, k.shape()));
        }
        Self { batch, tokens, q_heads, kv_heads, head_dim }.checked(op, documents)
    }

    /// Checks q `[B, T, HQ, D]` against block means `[C, H, D]`.
    pub(crate) fn of_query_and_pooled(
        op: &'static str,
        q: &Tensor,
        k_pooled: &Tensor,
        documents: &Documents,
        block_size: usize,
    ) -> Result<Self> {
        let [batch, tokens, q_heads, head_dim] = axes(op, "q", q, "[B, T, HQ, D]")?;
        let [_, kv_heads, _] = axes(op, "k_pooled", k_pooled, "[C, H, D]")?;
        check_positive(op, "block_size", block_size)?;
        check_shape(op, "k_pooled", k_pooled, &[documents.blocks(block_size), kv_heads, head_dim])?;
        Self { batch, tokens, q_heads, kv_heads, head_dim }.checked(op, documents)
    }

    fn checked(self, op: &'static str, documents: &Documents) -> Result<Self> {
        let Self { q_heads, kv_heads, .. } = self;
        check_positive(op, "head_dim", self.head_dim)?;
        if kv_heads == 0 || q_heads == 0 || !q_heads.is_multiple_of(kv_heads) {
            let expected = format!("a positive multiple of the {kv_heads} key/value heads");
            return Err(KernelError::value(op, "q_heads", expected, q_heads));
        }
        if documents.total_tokens() != self.total_tokens() {
            let expected = format!("documents over {} tokens", self.total_tokens());
            return Err(KernelError::value(op, "documents", expected, documents.total_tokens()));
        }
        Ok(self)
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
