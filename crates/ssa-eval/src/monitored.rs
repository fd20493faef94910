//! What is measured on held-out text between two steps of training.
//!
//! A run logs these structs under the names of their fields, whatever they are: a number added here
//! appears in `metrics.jsonl` and in TensorBoard.

use serde::{Deserialize, Serialize};
use ssa_model::AttentionMode;

use crate::analysis::{Analysis, ModeAttention};
use crate::attention_means::ProbedMeans;
use crate::perplexity::{BudgetResult, Perplexity};

/// What was measured after one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Monitored {
    /// Attention, if it was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Held-out losses, if they were due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

/// Attention on a fixed piece of held-out text, at the trained budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Tokens of the text.
    pub tokens: usize,
    /// Fraction of micro-batches and layers that ran on full attention since the probe before.
    #[serde(rename = "full_streams")]
    pub full_stream_fraction: f64,
    /// Mean `KL(p_full || p_sparse)` of the next-token distributions in nats; `None` for methods
    /// without full attention.
    pub kl_full_sparse: Option<f64>,
    /// One entry per inference mode: full (unless the method has none), sparse.
    pub hidden_states: Vec<ModeAttention<ProbedMeans>>,
}

/// Losses on a fixed piece of held-out text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Target tokens.
    pub targets: usize,
    /// Under full attention; `None` for methods without it.
    pub full: Option<ModeLoss>,
    /// Under sparse attention at the trained budget.
    pub sparse: ModeLoss,
    /// Mean `KL(p_full || p_sparse)` of the next-token distributions in nats; `None` for methods
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
    /// The part of an analysis that is logged during training.
    pub fn new(analysis: &Analysis, full_stream_fraction: f64) -> Self {
        let modes = analysis.hidden_states.iter();
        Self {
            tokens: analysis.tokens,
            full_stream_fraction,
            kl_full_sparse: analysis.kl_full_sparse,
            hidden_states: modes.map(|mode| mode.map(|means| means.into())).collect(),
        }
    }
}

impl Validation {
    /// The results of an evaluation at one budget, not known to be the best; `None` without it.
    pub fn new(perplexity: &Perplexity) -> Option<Self> {
        let sparse =
            perplexity.results.iter().find(|result| result.mode == AttentionMode::Sparse)?;
        Some(Self {
            targets: perplexity.targets,
            full: perplexity.full().map(ModeLoss::from),
            sparse: sparse.into(),
            kl_full_sparse: sparse.kl_full_sparse,
            best: false,
        })
    }

    /// The loss under one inference mode.
    pub fn under(&self, mode: AttentionMode) -> Option<ModeLoss> {
        match mode {
            AttentionMode::Full => self.full,
            AttentionMode::Sparse => Some(self.sparse),
        }
    }
}

impl From<&BudgetResult> for ModeLoss {
    fn from(result: &BudgetResult) -> Self {
        Self { nats_per_token: result.nats_per_token, bits_per_byte: result.bits_per_byte }
    }
}
