//! Measurements on held-out text between two training steps.
//!
//! A run logs these structs under their field names: a field added here appears in `metrics.jsonl`
//! and in TensorBoard.

use serde::{Deserialize, Serialize};
use ssa_model::AttentionMode;

use crate::analysis::{Analysis, ModeAttention};
use crate::attention_means::ProbedMeans;
use crate::perplexity::{BudgetResult, Perplexity};

/// The measurements after one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Monitored {
    /// The probe, if due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// The validation, if due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

/// Attention statistics on fixed held-out text, at the training budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Number of tokens.
    pub tokens: usize,
    /// Fraction of micro-batches and layers since the previous probe whose stream was full
    /// attention.
    #[serde(rename = "full_streams")]
    pub full_stream_fraction: f64,
    /// Mean `KL(p_full || p_sparse)` of the next-token distributions in nats; `None` for methods
    /// without full attention.
    pub kl_full_sparse: Option<f64>,
    /// One entry per inference mode: full (unless the method has none), sparse.
    pub hidden_states: Vec<ModeAttention<ProbedMeans>>,
}

/// Losses on fixed held-out text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Number of target tokens.
    pub targets: usize,
    /// Loss with full attention; `None` for methods without it.
    pub full: Option<ModeLoss>,
    /// Loss with sparse attention at the training budget.
    pub sparse: ModeLoss,
    /// Mean `KL(p_full || p_sparse)` of the next-token distributions in nats; `None` for methods
    /// without full attention.
    pub kl_full_sparse: Option<f64>,
    /// Whether these are the best weights so far, saved in `best/`.
    pub best: bool,
}

/// The loss of one inference mode.
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
    /// Converts an evaluation at one budget; `None` without a budget. `best` is false.
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

    /// The loss of one inference mode.
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
