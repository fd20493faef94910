//! Attention over the means of complete blocks.

use ssa_kernels::DType;
use ssa_kernels::ops::attention::AttentionGrads;
use ssa_kernels::ops::attention::compression::{
    compression_attention_bwd, compression_attention_fwd,
};
use ssa_kernels::ops::attention::pooling::{mean_pool_bwd, mean_pool_fwd};
use ssa_kernels::ops::gate::GateBranch;

use crate::Result;
use crate::method::keys::AttendedKeys;
use crate::method::kind::{AttentionInputs, AttentionKind, AttentionSizes, SavedAttention};

/// Over the mean keys and values of complete blocks.
#[derive(Debug)]
pub struct Compression;

impl AttentionKind for Compression {
    fn name(&self) -> &'static str {
        "compression"
    }

    fn gate(&self) -> GateBranch {
        GateBranch::Compression
    }

    fn keys(&self, sizes: &AttentionSizes) -> AttendedKeys {
        AttendedKeys::BlockMeans { size: sizes.budget.block_size() as u64 }
    }

    fn saved_bytes(&self, sizes: &AttentionSizes, dtype: DType) -> usize {
        let pooled = 2 * sizes.kv_heads * sizes.head_dim * dtype.size();
        sizes.output_bytes(dtype) + pooled.div_ceil(sizes.budget.block_size())
    }

    fn forward(&self, inputs: &AttentionInputs<'_>) -> Result<SavedAttention> {
        let &AttentionInputs { q, k, v, documents, softmax_scale: scale, selection, .. } = inputs;
        let size = selection.budget.block_size();
        let k_pooled = mean_pool_fwd(k, documents, size)?;
        let v_pooled = mean_pool_fwd(v, documents, size)?;
        let output = compression_attention_fwd(q, &k_pooled, &v_pooled, documents, size, scale)?;
        Ok(SavedAttention::new(output, move |dout, output, inputs, grads| {
            let &AttentionInputs { q, documents, softmax_scale: scale, .. } = inputs;
            let (k, v) = (&k_pooled, &v_pooled);
            let mut pooled = AttentionGrads::zeros_like(q, k, v);
            compression_attention_bwd(dout, q, k, v, output, documents, size, scale, &mut pooled)?;
            grads.dq.add_assign(&pooled.dq)?;
            mean_pool_bwd(&pooled.dk, documents, size, &mut grads.dk)?;
            mean_pool_bwd(&pooled.dv, documents, size, &mut grads.dv)?;
            Ok(())
        }))
    }
}
