//! Attention over all earlier tokens.

use ssa_kernels::ops::attention::cached::CachedKeys;
use ssa_kernels::ops::attention::full::{full_attention_bwd, full_attention_fwd};
use ssa_kernels::ops::gate::GateBranch;

use crate::Result;
use crate::method::keys::AttendedKeys;
use crate::method::kind::{
    AttentionInputs, AttentionKind, AttentionSizes, CachedAttention, CachedInputs, SavedAttention,
};

/// Attention over all earlier tokens. It shares its gate with [`Sparse`](super::Sparse).
#[derive(Debug)]
pub struct Full;

impl AttentionKind for Full {
    fn name(&self) -> &'static str {
        "full"
    }

    fn gate(&self) -> GateBranch {
        GateBranch::Selection
    }

    fn keys(&self, _: &AttentionSizes) -> AttendedKeys {
        AttendedKeys::All
    }

    fn forward(&self, inputs: &AttentionInputs<'_>) -> Result<SavedAttention> {
        let output = full_attention_fwd(&inputs.call)?;
        Ok(SavedAttention::new(output, |dout, output, inputs, grads| {
            Ok(full_attention_bwd(dout, &inputs.call, output, grads)?)
        }))
    }

    fn cached(&self, inputs: &CachedInputs<'_>) -> Result<CachedAttention> {
        Ok(CachedAttention { output: inputs.attend(CachedKeys::All)?, pages: None })
    }
}
