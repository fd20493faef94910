//! One attention of a layer: its kernels forward and backward.

use ssa_kernels::ops::attention::compression::{
    compression_attention_bwd, compression_attention_fwd,
};
use ssa_kernels::ops::attention::full::{full_attention_bwd, full_attention_fwd};
use ssa_kernels::ops::attention::pooling::{mean_pool_bwd, mean_pool_fwd};
use ssa_kernels::ops::attention::selection::{BlockIndices, select_by_means};
use ssa_kernels::ops::attention::sparse::{sparse_attention_bwd, sparse_attention_fwd};
use ssa_kernels::ops::attention::window::{window_attention_bwd, window_attention_fwd};
use ssa_kernels::ops::attention::{AttentionCall, AttentionGrads, AttentionOutput};
use ssa_kernels::ops::rope::RopeTable;
use ssa_kernels::{Documents, Tensor};

use super::plan::{AttentionKind, PlannedAttention};
use crate::{AttentionOptions, DocumentMasking, Result};

/// What stays the same over all layers of a call.
#[derive(Clone, Copy)]
pub(crate) struct AttentionContext<'a> {
    pub(crate) options: &'a AttentionOptions,
    pub(crate) documents: &'a Documents,
    /// One document per row: what the sparse stream sees under [`DocumentMasking::FullOnly`].
    pub(crate) rows: &'a Documents,
    pub(crate) rope: &'a RopeTable,
    pub(crate) head_dim: usize,
    /// `head_dim^-0.5`.
    pub(crate) softmax_scale: f32,
}

impl<'a> AttentionContext<'a> {
    /// The documents that bound an attention.
    fn documents_of(&self, kind: AttentionKind) -> &'a Documents {
        match (self.options.document_masking, kind) {
            (DocumentMasking::Both, _) | (_, AttentionKind::Full) => self.documents,
            (DocumentMasking::FullOnly, _) => self.rows,
        }
    }
}

/// The inputs of every attention of a layer, after RoPE.
pub(crate) struct QueryKeyValue {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
}

/// A computed attention with what its backward needs.
pub(crate) struct Branch {
    pub(crate) kind: AttentionKind,
    /// Whether the gated output goes on to the next layer.
    pub(crate) contributes: bool,
    /// The ungated result.
    pub(crate) output: AttentionOutput,
    state: BranchState,
}

enum BranchState {
    Full,
    Sparse { block_indices: BlockIndices },
    Compression { k_pooled: Tensor, v_pooled: Tensor },
    Window,
}

/// Computes the planned attentions.
pub(crate) fn forward(
    plan: &[PlannedAttention],
    qkv: &QueryKeyValue,
    context: &AttentionContext<'_>,
) -> Result<Vec<Branch>> {
    plan.iter().map(|planned| Branch::forward(*planned, qkv, context)).collect()
}

/// The blocks that the queries attend to.
fn select(qkv: &QueryKeyValue, context: &AttentionContext<'_>) -> Result<BlockIndices> {
    let documents = context.documents_of(AttentionKind::Sparse);
    let selection = &context.options.selection;
    Ok(select_by_means(&qkv.q, &qkv.k, documents, selection, context.softmax_scale)?)
}

/// Adds the gradients of q, k and v for the gradients `douts` of the ungated outputs.
pub(crate) fn backward(
    branches: &[Branch],
    douts: &[Tensor],
    qkv: &QueryKeyValue,
    context: &AttentionContext<'_>,
    grads: &mut AttentionGrads,
) -> Result<()> {
    branches
        .iter()
        .zip(douts)
        .try_for_each(|(branch, dout)| branch.backward(dout, qkv, context, grads))
}

impl Branch {
    /// Computes the attention.
    fn forward(
        planned: PlannedAttention,
        qkv: &QueryKeyValue,
        context: &AttentionContext<'_>,
    ) -> Result<Self> {
        let QueryKeyValue { q, k, v } = qkv;
        let documents = context.documents_of(planned.kind);
        let call = AttentionCall { q, k, v, documents, softmax_scale: context.softmax_scale };
        let (output, state) = match planned.kind {
            AttentionKind::Full => (full_attention_fwd(&call)?, BranchState::Full),
            AttentionKind::Sparse => {
                let block_indices = select(qkv, context)?;
                let output = sparse_attention_fwd(&call, &block_indices)?;
                (output, BranchState::Sparse { block_indices })
            }
            AttentionKind::Compression => {
                let block_size = context.options.selection.block_size;
                let k_pooled = mean_pool_fwd(k, documents, block_size)?;
                let v_pooled = mean_pool_fwd(v, documents, block_size)?;
                let call = AttentionCall { k: &k_pooled, v: &v_pooled, ..call };
                let output = compression_attention_fwd(&call, block_size)?;
                (output, BranchState::Compression { k_pooled, v_pooled })
            }
            AttentionKind::Window => {
                let window_size = context.options.window_size;
                (window_attention_fwd(&call, window_size)?, BranchState::Window)
            }
        };
        Ok(Self { kind: planned.kind, contributes: planned.contributes, output, state })
    }

    /// Adds the gradients of q, k and v for the gradient `dout` of the ungated output.
    fn backward(
        &self,
        dout: &Tensor,
        qkv: &QueryKeyValue,
        context: &AttentionContext<'_>,
        grads: &mut AttentionGrads,
    ) -> Result<()> {
        let QueryKeyValue { q, k, v } = qkv;
        let documents = context.documents_of(self.kind);
        let call = AttentionCall { q, k, v, documents, softmax_scale: context.softmax_scale };
        match &self.state {
            BranchState::Full => full_attention_bwd(dout, &call, &self.output, grads)?,
            BranchState::Sparse { block_indices } => {
                sparse_attention_bwd(dout, &call, block_indices, &self.output, grads)?;
            }
            BranchState::Window => {
                let window_size = context.options.window_size;
                window_attention_bwd(dout, &call, window_size, &self.output, grads)?;
            }
            BranchState::Compression { k_pooled, v_pooled } => {
                let block_size = context.options.selection.block_size;
                let mut pooled = AttentionGrads::zeros_like(q, k_pooled, v_pooled);
                let call = AttentionCall { k: k_pooled, v: v_pooled, ..call };
                compression_attention_bwd(dout, &call, block_size, &self.output, &mut pooled)?;
                grads.dq.add_assign(&pooled.dq)?;
                mean_pool_bwd(&pooled.dk, documents, block_size, &mut grads.dk)?;
                mean_pool_bwd(&pooled.dv, documents, block_size, &mut grads.dv)?;
            }
        }
        Ok(())
    }
}
