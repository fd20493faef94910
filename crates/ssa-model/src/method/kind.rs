//! The interface of an attention that can be part of a method.

use std::fmt::Debug;

use ssa_kernels::kv_cache::{CachedSequences, KvCache};
use ssa_kernels::ops::attention::cached::{
    CachedKeys, PageIndices, PageOptions, cached_attention_fwd,
};
use ssa_kernels::ops::attention::selection::{SelectionOptions, SparseBudget};
use ssa_kernels::ops::attention::{AttentionCall, AttentionGrads, AttentionOutput};
use ssa_kernels::ops::gate::GateBranch;
use ssa_kernels::{DType, Tensor};

use super::keys::AttendedKeys;
use crate::Result;
use crate::error::OptionsError;

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

    /// Computes the attention of new tokens to the cached ones.
    ///
    /// # Errors
    /// [`OptionsError::NotCached`] unless the kind implements this;
    /// [`ModelError::Kernel`](crate::ModelError::Kernel) if an op refuses its arguments.
    fn cached(&self, _: &CachedInputs<'_>) -> Result<CachedAttention> {
        Err(OptionsError::NotCached { attention: self.name() }.into())
    }
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

/// What the attentions of a layer compute from when earlier tokens are in a cache.
#[derive(Clone, Copy)]
pub struct CachedInputs<'a> {
    /// Queries after RoPE `[B, T, HQ, D]`.
    pub q: &'a Tensor,
    /// The keys and values, those of the queries included.
    pub cache: &'a KvCache,
    /// The layer.
    pub layer: usize,
    /// The sequences of the queries.
    pub sequences: &'a CachedSequences,
    /// Budget and rule of block selection.
    pub pages: &'a PageOptions,
    /// Tokens of the sliding window.
    pub window_size: usize,
    /// Factor of every score.
    pub softmax_scale: f32,
}

/// The attention of new tokens.
pub struct CachedAttention {
    /// The output `[B, T, HQ, D]`, before its gate, and its log-sum-exp.
    pub output: AttentionOutput,
    /// The pages that the queries selected, of a kind that selects.
    pub pages: Option<PageIndices>,
}

impl CachedInputs<'_> {
    /// Attends to these keys.
    ///
    /// # Errors
    /// [`ModelError::Kernel`](crate::ModelError::Kernel) if the op refuses its arguments.
    pub fn attend(&self, keys: CachedKeys<'_>) -> Result<AttentionOutput> {
        let &Self { q, cache, layer, sequences, softmax_scale, .. } = self;
        Ok(cached_attention_fwd(q, cache, layer, sequences, keys, softmax_scale)?)
    }
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
