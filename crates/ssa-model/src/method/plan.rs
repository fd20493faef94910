//! What one layer computes.

use ssa_kernels::ops::attention::AttentionMode;

use super::kind::AttentionKind;

/// The attentions that a layer computes.
#[derive(Clone, Debug)]
pub struct LayerPlan {
    attentions: Vec<PlannedAttention>,
    stream: AttentionMode,
}

/// An attention that a layer computes.
#[derive(Clone, Copy, Debug)]
pub struct PlannedAttention {
    /// The kind of attention.
    pub kind: &'static dyn AttentionKind,
    /// Its mode.
    pub mode: AttentionMode,
}

impl LayerPlan {
    pub(super) fn new(attentions: Vec<PlannedAttention>, stream: AttentionMode) -> Self {
        Self { attentions, stream }
    }

    /// The attentions, those of mode full first.
    pub fn attentions(&self) -> &[PlannedAttention] {
        &self.attentions
    }

    /// The mode whose gated outputs feed the next layer.
    pub fn stream(&self) -> AttentionMode {
        self.stream
    }
}
