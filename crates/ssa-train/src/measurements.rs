//! What is measured on held-out text between two steps. This crate keeps and logs these numbers;
//! whoever runs the trainer measures them.

use serde::{Deserialize, Serialize};
use ssa_model::AttentionMode;

/// What was measured after a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// Attention, if it was the step's turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Held-out losses, if it was the step's turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

/// Attention on a fixed piece of held-out text, at the trained budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Tokens of the text.
    pub tokens: usize,
    /// Share of micro-batches and layers that ran on full attention since the probe before.
    pub full_streams: f64,
    /// Mean `KL(p_full || p_sparse)` of the next-token distributions in nats; none for methods
    /// without full attention.
    pub kl_full_sparse: Option<f64>,
    /// One entry per inference mode whose hidden states were probed: full (unless the method has
    /// none), sparse.
    pub hidden_states: Vec<ProbedStates>,
}

/// Attention under the hidden states of one inference mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedStates {
    /// The inference mode.
    pub mode: AttentionMode,
    /// Means over all layers.
    pub overall: ProbedAttention,
    /// Means of each layer, the first layer first.
    pub layers: Vec<ProbedAttention>,
}

/// Means over tokens and query heads. Full and sparse attention are both computed from the same q,
/// k and v.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedAttention {
    /// Full-attention weight on the selected blocks.
    pub attention_sparsity: f64,
    /// Entropy of the full-attention distribution, in bits.
    pub entropy_bits: f64,
    /// Norm of the difference between full and sparse output, before the gate.
    pub distance: f64,
}

/// Losses on a fixed piece of held-out text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Target tokens.
    pub targets: usize,
    /// Under full attention; none for methods without it.
    pub full: Option<ModeLoss>,
    /// Under sparse attention at the trained budget.
    pub sparse: ModeLoss,
    /// Mean `KL(p_full || p_sparse)` of the next-token distributions in nats; none for methods
    /// without full attention.
    pub kl_full_sparse: Option<f64>,
    /// Whether these are the best weights so far, kept in `best/`.
    pub best: bool,
}

/// The loss under one inference mode.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeLoss {
    /// Mean negative log-likelihood of a target, in nats.
    pub nats_per_token: f64,
    /// Total negative log-likelihood in bits over the bytes of text it covers.
    pub bits_per_byte: f64,
}

impl Probe {
    /// The entry of one inference mode.
    pub fn under(&self, mode: AttentionMode) -> Option<&ProbedStates> {
        self.hidden_states.iter().find(|states| states.mode == mode)
    }
}

impl Validation {
    /// The loss under one inference mode.
    pub fn under(&self, mode: AttentionMode) -> Option<ModeLoss> {
        match mode {
            AttentionMode::Full => self.full,
            AttentionMode::Sparse => Some(self.sparse),
        }
    }
}
