//! Everything that a fifth method needs besides its op folder: a kind of attention, and an entry.
use ssa_kernels::ops::gate::GateBranch;
use ssa_model::*;

use super::op::{mean_attention_bwd, mean_attention_fwd};

#[derive(Debug)]
struct Mean;

impl AttentionKind for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn gate(&self) -> GateBranch {
        GateBranch::Selection
    }

    fn keys(&self, _: &AttentionSizes) -> AttendedKeys {
        AttendedKeys::All
    }

    fn forward(&self, inputs: &AttentionInputs<'_>) -> Result<SavedAttention> {
        let output = mean_attention_fwd(&inputs.call)?;
        Ok(SavedAttention::new(output, |dout, _, inputs, grads| {
            Ok(mean_attention_bwd(dout, &inputs.call, grads)?)
        }))
    }
}

pub(crate) const MEAN: Method = Method::new(&MethodSpec {
    name: "mean",
    title: "Mean of all earlier values, aligned with sparse attention",
    full: &[&Mean],
    sparse: &[&Sparse],
    training: Training::Aligned,
});
