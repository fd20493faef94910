//! Attention over the last tokens.

use ssa_kernels::ops::attention::cached::CachedKeys;
use ssa_kernels::ops::attention::window::{window_attention_bwd, window_attention_fwd};
use ssa_kernels::ops::gate::GateBranch;

use crate::Result;
use crate::method::keys::AttendedKeys;
use crate::method::kind::{
    AttentionInputs, AttentionKind, AttentionSizes, CachedAttention, CachedInputs, SavedAttention,
};

/// Attention over the last `window_size` tokens.
#[derive(Debug)]
pub struct Window;

impl AttentionKind for Window {
    fn name(&self) -> &'static str {
        "window"
    }

    fn gate(&self) -> GateBranch {
        GateBranch::Window
    }

    fn keys(&self, sizes: &AttentionSizes) -> AttendedKeys {
        AttendedKeys::Last(sizes.window_size as u64)
    }

    fn uses_window(&self) -> bool {
        true
    }

    fn forward(&self, inputs: &AttentionInputs<'_>) -> Result<SavedAttention> {
        let output = window_attention_fwd(&inputs.call, inputs.window_size)?;
        Ok(SavedAttention::new(output, |dout, output, inputs, grads| {
            Ok(window_attention_bwd(dout, &inputs.call, inputs.window_size, output, grads)?)
        }))
    }

    fn cached(&self, inputs: &CachedInputs<'_>) -> Result<CachedAttention> {
        Ok(CachedAttention {
            output: inputs.attend(CachedKeys::Last(inputs.window_size))?,
            pages: None,
        })
    }
}
