//! Attention over the tokens of the selected blocks.

use ssa_kernels::DType;
use ssa_kernels::ops::attention::AttentionCall;
use ssa_kernels::ops::attention::cached::{CachedKeys, select_pages};
use ssa_kernels::ops::attention::selection::select_by_means;
use ssa_kernels::ops::attention::sparse::{sparse_attention_bwd, sparse_attention_fwd};
use ssa_kernels::ops::gate::GateBranch;

use crate::Result;
use crate::method::keys::AttendedKeys;
use crate::method::kind::{
    AttentionInputs, AttentionKind, AttentionSizes, CachedAttention, CachedInputs, SavedAttention,
};

/// Attention over the tokens of the blocks whose mean keys score highest with the query. It shares
/// its gate with [`Full`](super::Full).
#[derive(Debug)]
pub struct Sparse;

impl AttentionKind for Sparse {
    fn name(&self) -> &'static str {
        "sparse"
    }

    fn gate(&self) -> GateBranch {
        GateBranch::Selection
    }

    fn keys(&self, sizes: &AttentionSizes) -> AttendedKeys {
        AttendedKeys::Selected {
            size: sizes.budget.block_size() as u64,
            counts: sizes.budget.block_counts() as u64,
        }
    }

    fn saved_bytes(&self, sizes: &AttentionSizes, dtype: DType) -> usize {
        let indices = sizes.kv_heads * sizes.budget.block_counts();
        sizes.output_bytes(dtype) + indices * size_of::<i32>()
    }

    fn forward(&self, inputs: &AttentionInputs<'_>) -> Result<SavedAttention> {
        let AttentionCall { q, k, documents, softmax_scale, .. } = inputs.call;
        let blocks = select_by_means(q, k, documents, inputs.selection, softmax_scale)?;
        let output = sparse_attention_fwd(&inputs.call, &blocks)?;
        Ok(SavedAttention::new(output, move |dout, output, inputs, grads| {
            Ok(sparse_attention_bwd(dout, &inputs.call, &blocks, output, grads)?)
        }))
    }

    fn cached(&self, inputs: &CachedInputs<'_>) -> Result<CachedAttention> {
        let &CachedInputs { q, cache, layer, sequences, pages, softmax_scale, .. } = inputs;
        let pages = select_pages(q, cache, layer, sequences, pages, softmax_scale)?;
        let output = inputs.attend(CachedKeys::Pages(&pages))?;
        Ok(CachedAttention { output, pages: Some(pages) })
    }
}
