//! What an attention must say about itself to be part of a method.

use std::fmt::Debug;

use ssa_kernels::ops::attention::selection::{SelectionOptions, SparseBudget};
use ssa_kernels::ops::attention::{AttentionCall, AttentionGrads, AttentionOutput};
use ssa_kernels::ops::gate::GateBranch;
use ssa_kernels::{DType, Tensor};

use super::keys::AttendedKeys;
use crate::Result;

/// A kind of attention over the queries, keys and values of a layer.
///
/// The layer does the rest, once for all kinds: projections, RoPE, gates, the sum or the alignment
/// of several attentions, and the backward of all that.
pub trait AttentionKind: Debug + Sync {
    /// Name in messages.
    fn name(&self) -> &'static str;

    /// The rows of `g_proj` that gate its output. Kinds that name the same rows share a gate.
    fn gate(&self) -> GateBranch;

    /// The keys that a query attends to.
    fn keys(&self, sizes: &AttentionSizes) -> AttendedKeys;

    /// Whether it needs a `window_size`.
    fn uses_window(&self) -> bool {
        false
    }

    /// Bytes that it keeps between forward and backward for each token, where activations have type
    /// `dtype`.
    fn saved_bytes(&self, sizes: &AttentionSizes, dtype: DType) -> usize {
        sizes.output_bytes(dtype)
    }

    /// Computes the attention.
    ///
    /// # Errors
    /// [`ModelError::Kernel`](crate::ModelError::Kernel) if an op refuses its arguments.
    fn forward(&self, inputs: &AttentionInputs<'_>) -> Result<SavedAttention>;
}

/// What the attentions of a layer compute from.
#[derive(Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// q `[B, T, HQ, D]` and k `[B, T, H, D]` after RoPE, v `[B, T, H, D]`, and the documents that
    /// bound the attention: whole rows where the masking ignores borders.
    pub call: AttentionCall<'a>,
    /// Budget and rule of block selection.
    pub selection: &'a SelectionOptions,
    /// Tokens of the sliding window.
    pub window_size: usize,
}

/// The sizes of a model's attentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionSizes {
    /// HQ, query heads.
    pub q_heads: usize,
    /// H, key/value heads.
    pub kv_heads: usize,
    /// D, size of a head.
    pub head_dim: usize,
    /// Budget of sparse attention.
    pub budget: SparseBudget,
    /// Tokens of the sliding window; 0 without one.
    pub window_size: usize,
}

impl AttentionSizes {
    /// Bytes of an output and its log-sum-exp for each token.
    pub fn output_bytes(&self, dtype: DType) -> usize {
        self.q_heads * (self.head_dim * dtype.size() + DType::F32.size())
    }
}

/// A computed attention with what its backward needs.
pub struct SavedAttention {
    output: AttentionOutput,
    backward: Box<Backward>,
}

/// Adds the gradients of q, k and v for the gradient of the output, given the output and the inputs
/// of the forward. It owns whatever else it needs.
type Backward =
    dyn Fn(&Tensor, &AttentionOutput, &AttentionInputs<'_>, &mut AttentionGrads) -> Result<()>;

impl SavedAttention {
    /// An output `[B, T, HQ, D]`, before its gate, and its backward: called with the gradient of
    /// that output, the output, the inputs of the forward, and the gradients to add to.
    pub fn new(
        output: AttentionOutput,
        backward: impl Fn(
            &Tensor,
            &AttentionOutput,
            &AttentionInputs<'_>,
            &mut AttentionGrads,
        ) -> Result<()>
        + 'static,
    ) -> Self {
        Self { output, backward: Box::new(backward) }
    }

    /// The output before its gate `[B, T, HQ, D]`.
    pub(crate) fn out(&self) -> &Tensor {
        &self.output.out
    }

    /// Adds the gradients of q, k and v for the gradient `dout` of the output.
    pub(crate) fn backward(
        &self,
        dout: &Tensor,
        inputs: &AttentionInputs<'_>,
        grads: &mut AttentionGrads,
    ) -> Result<()> {
        (self.backward)(dout, &self.output, inputs, grads)
    }
}
