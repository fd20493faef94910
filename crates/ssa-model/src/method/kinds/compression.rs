//! Attention over the means of complete blocks.

use ssa_kernels::DType;
use ssa_kernels::ops::attention::cached::CachedKeys;
use ssa_kernels::ops::attention::compression::{
    compression_attention_bwd, compression_attention_fwd,
};
use ssa_kernels::ops::attention::pooling::{mean_pool_bwd, mean_pool_fwd};
use ssa_kernels::ops::attention::{AttentionCall, AttentionGrads};
use ssa_kernels::ops::gate::GateBranch;

use crate::Result;
use crate::method::keys::AttendedKeys;
use crate::method::kind::{
    AttentionInputs, AttentionKind, AttentionSizes, CachedAttention, CachedInputs, SavedAttention,
};

/// Attention over the mean keys and values of complete blocks.
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
        let AttentionCall { k, v, documents, .. } = inputs.call;
        let size = inputs.selection.budget.block_size();
        let k_pooled = mean_pool_fwd(k, documents, size)?;
        let v_pooled = mean_pool_fwd(v, documents, size)?;
        let call = AttentionCall { k: &k_pooled, v: &v_pooled, ..inputs.call };
        let output = compression_attention_fwd(&call, size)?;
        Ok(SavedAttention::new(output, move |dout, output, inputs, grads| {
            let call = AttentionCall { k: &k_pooled, v: &v_pooled, ..inputs.call };
            let mut pooled = AttentionGrads::zeros_like(call.q, call.k, call.v)?;
            compression_attention_bwd(dout, &call, size, output, &mut pooled)?;
            grads.dq.add_assign(&pooled.dq)?;
            mean_pool_bwd(&pooled.dk, call.documents, size, &mut grads.dk)?;
            mean_pool_bwd(&pooled.dv, call.documents, size, &mut grads.dv)?;
            Ok(())
        }))
    }

    fn cached(&self, inputs: &CachedInputs<'_>) -> Result<CachedAttention> {
        Ok(CachedAttention { output: inputs.attend(CachedKeys::Means)?, pages: None })
    }
}
