//! The interface of an attention that can be part of a method.

use std::fmt::Debug;

use ssa_kernels::ops::attention::selection::{SelectionOptions, SparseBudget};
use ssa_kernels::ops::attention::{AttentionCall, AttentionGrads, AttentionOutput};
use ssa_kernels::ops::gate::GateBranch;
use ssa_kernels::{DType, Tensor};

use super::keys::AttendedKeys;
use crate::Result;

/// A kind of attention over the queries, keys and values of a layer.
///
/// The layer does the rest for all kinds: projections, RoPE, gates, the sum or the alignment of
/// several attentions, and their backward pass.
pub trait AttentionKind: Debug + Sync {
    /// Name in messages.
    fn name(&self) -> &'static str;

    /// The rows of `g_proj` that gate its output. Kinds with the same rows share a gate.
    fn gate(&self) -> GateBranch;

    /// The keys that a query attends to.
    fn keys(&self, sizes: &AttentionSizes) -> AttendedKeys;

    /// Whether it needs a `window_size`.
    fn uses_window(&self) -> bool {
        false
    }

    /// Bytes saved per token between forward and backward, for activations of type `dtype`.
    fn saved_bytes(&self, sizes: &AttentionSizes, dtype: DType) -> usize {
        sizes.output_bytes(dtype)
    }

    /// Computes the attention.
    ///
    /// # Errors
    /// [`ModelError::Kernel`](crate::ModelError::Kernel) if an op refuses its arguments.
    fn forward(&self, inputs: &AttentionInputs<'_>) -> Result<SavedAttention>;
}

/// The inputs of the attentions of a layer.
#[derive(Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// q `[B, T, HQ, D]` and k `[B, T, H, D]` after RoPE, v `[B, T, H, D]`, and the documents that
    /// bound the attention: whole rows if the masking ignores borders.
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
    /// Bytes per token of an output and its log-sum-exp.
    pub fn output_bytes(&self, dtype: DType) -> usize {
        self.q_heads * (self.head_dim * dtype.size() + DType::F32.size())
    }
}

/// A computed attention with what its backward needs.
pub struct SavedAttention {
    output: AttentionOutput,
    backward: Box<Backward>,
}

/// Adds the gradients of q, k and v, given the gradient of the output, the output and the inputs of
/// the forward pass. It owns whatever else it needs.
type Backward =
    dyn Fn(&Tensor, &AttentionOutput, &AttentionInputs<'_>, &mut AttentionGrads) -> Result<()>;

impl SavedAttention {
    /// Combines an output `[B, T, HQ, D]`, before its gate, with its backward function. The
    /// arguments of that function are the gradient of the output, the output, the inputs of the
    /// forward pass, and the gradients to add to.
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

    /// Adds the gradients of q, k and v, given the gradient `dout` of the output.
    pub(crate) fn backward(
        &self,
        dout: &Tensor,
        inputs: &AttentionInputs<'_>,
        grads: &mut AttentionGrads,
    ) -> Result<()> {
        (self.backward)(dout, &self.output, inputs, grads)
    }
}
