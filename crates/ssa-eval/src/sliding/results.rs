//! Results by window length.

use serde::Serialize;
use ssa_data::bits_per_byte;
use ssa_infer::Budget;
use ssa_model::AttentionMode;

use super::rope::RopeMethod;
use crate::harness::InferenceMode;

/// The extent and the results of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlidingPerplexity {
    /// Tokens that a window scores.
    pub stride: usize,
    /// The window lengths.
    pub lengths: Vec<usize>,
    /// The model's `max_position_embeddings`. Longer windows extrapolate.
    pub context_length: usize,
    /// The context length that the scaling of RoPE starts from.
    pub original_length: usize,
    /// Documents that are scored.
    pub documents: usize,
    /// Documents that are too short for the longest window.
    pub short_documents: usize,
    /// Windows of each length.
    pub windows: usize,
    /// Tokens that are scored at each length.
    pub scored_tokens: usize,
    /// Bytes of text that they cover.
    pub bytes: usize,
    /// By scaling of RoPE, attention and length.
    pub results: Vec<SlidingResult>,
}

/// The result of one length, attention and scaling of RoPE.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SlidingResult {
    /// The scaling of RoPE.
    pub rope: RopeMethod,
    /// Its factor.
    pub rope_factor: Option<f64>,
    /// Full or sparse attention.
    pub attention: AttentionMode,
    /// The budget of sparse attention.
    pub budget: Option<Budget>,
    /// The window length in tokens.
    pub length: usize,
    /// Mean negative log-likelihood of a scored token.
    pub nats_per_token: f64,
    /// `exp(nats_per_token)`.
    pub perplexity: f64,
    /// Total negative log-likelihood in bits over the bytes of the scored tokens.
    pub bits_per_byte: f64,
}

impl SlidingResult {
    /// A result that is not yet scored.
    pub(super) fn new(
        length: usize,
        mode: InferenceMode,
        rope: RopeMethod,
        rope_factor: Option<f64>,
    ) -> Self {
        Self {
            rope,
            rope_factor,
            attention: mode.mode,
            budget: mode.budget,
            length,
            nats_per_token: f64::NAN,
            perplexity: f64::NAN,
            bits_per_byte: f64::NAN,
        }
    }

    /// With the negative log-likelihood of so many tokens and bytes.
    pub(super) fn scored(self, nll: f64, tokens: usize, bytes: f64) -> Self {
        let nats_per_token = nll / tokens as f64;
        Self {
            nats_per_token,
            perplexity: nats_per_token.exp(),
            bits_per_byte: bits_per_byte(nll, bytes),
            ..self
        }
    }

    /// The attention.
    pub(super) fn mode(&self) -> InferenceMode {
        InferenceMode { mode: self.attention, budget: self.budget }
    }
}
