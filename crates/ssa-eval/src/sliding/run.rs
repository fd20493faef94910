//! Scores the windows.

use std::sync::Arc;

use ssa_infer::{CallOptions, Engine, InferenceModel, ScoredChunk};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::ModelConfig;

use super::results::{SlidingPerplexity, SlidingResult};
use super::rope::{RopeMethod, RopeSettings};
use super::text::SlidingText;
use crate::Result;
use crate::harness::InferenceMode;

/// An evaluation of a model at several window lengths, attentions and scalings of RoPE.
pub struct SlidingRun<'a> {
    /// The model.
    pub model: &'a InferenceModel,
    /// The text.
    pub text: &'a SlidingText,
    /// The attentions, in the order of the results.
    pub modes: &'a [InferenceMode],
    /// The scalings of RoPE, in the order of the results.
    pub ropes: &'a [RopeMethod],
    /// Their factors.
    pub rope_settings: RopeSettings,
    /// Rule for block selection.
    pub rule: SelectionRule,
    /// Tokens that are computed together, except for longer windows.
    pub batch_tokens: usize,
}

/// The windows of one length with one attention and one RoPE. Methods of scaling that agree share
/// a part.
#[derive(Clone, Debug, PartialEq)]
pub struct SlidingPart {
    /// The window length.
    pub length: usize,
    /// The attention.
    pub mode: InferenceMode,
    pub(super) config: ModelConfig,
}

impl SlidingRun<'_> {
    /// The parts to compute, short windows first.
    ///
    /// # Errors
    /// [`EvalError::Task`](crate::EvalError::Task) if a model cannot be scaled,
    /// [`EvalError::Model`](crate::EvalError::Model) for an impossible configuration.
    pub fn parts(&self) -> Result<Vec<SlidingPart>> {
        let mut lengths = self.text.settings.lengths.clone();
        lengths.sort_unstable();
        let mut parts = Vec::new();
        for length in lengths {
            for &mode in self.modes {
                for &rope in self.ropes {
                    let part = self.part(length, mode, rope)?;
                    if !parts.contains(&part) {
                        parts.push(part);
                    }
                }
            }
        }
        Ok(parts)
    }

    fn part(&self, length: usize, mode: InferenceMode, rope: RopeMethod) -> Result<SlidingPart> {
        let config = rope.config(self.model.config(), length, &self.rope_settings)?;
        Ok(SlidingPart { length, mode, config })
    }

    /// Bytes of keys and values of the largest call.
    pub fn cache_bytes(&self, parts: &[SlidingPart]) -> usize {
        let bytes = |part: &SlidingPart| {
            let page_size = part.mode.page_size(&part.config);
            let bytes_per_token = Engine::bytes_per_token(self.model, page_size);
            self.capacity(part).saturating_mul(bytes_per_token)
        };
        parts.iter().map(bytes).max().unwrap_or(0)
    }

    /// Windows of a call.
    fn windows_per_call(&self, part: &SlidingPart) -> usize {
        (self.batch_tokens / part.length).max(1)
    }

    /// Tokens of the cache.
    fn capacity(&self, part: &SlidingPart) -> usize {
        let page_size = part.mode.page_size(&part.config);
        self.windows_per_call(part) * part.length.next_multiple_of(page_size)
    }

    /// Scores the windows of a part except the first `skipped`. `take` receives the log-likelihood
    /// of the scored tokens of each window, in nats, in order.
    ///
    /// # Errors
    /// [`EvalError::Infer`](crate::EvalError::Infer), and what `take` says.
    pub fn run(
        &self,
        part: &SlidingPart,
        skipped: usize,
        take: &mut dyn FnMut(f64) -> Result<()>,
    ) -> Result<()> {
        let model = Arc::new(self.model.with_rope(&part.config)?);
        let InferenceMode { mode, budget } = part.mode;
        let options = CallOptions::with_budget(&part.config, mode, budget, self.rule);
        let page_size = part.mode.page_size(&part.config);
        let mut engine = Engine::new(model, page_size, self.capacity(part))?;
        let spans = self.text.spans();
        for spans in spans[skipped.min(spans.len())..].chunks(self.windows_per_call(part)) {
            let windows = spans.iter().map(|span| self.text.window(span, part.length));
            let chunks: Vec<ScoredChunk<'_>> = windows
                .map(|window| ScoredChunk {
                    sequence: engine.add_sequence(),
                    ids: window.ids,
                    targets: window.targets,
                })
                .collect();
            let scores = engine.score(&chunks, &options)?;
            for (chunk, scores) in chunks.iter().zip(scores) {
                engine.remove_sequence(chunk.sequence)?;
                take(scores.iter().map(|score| score.log_likelihood).sum())?;
            }
        }
        Ok(())
    }

    /// The results of all parts, of the log-likelihood of each.
    ///
    /// # Errors
    /// As [`parts`](Self::parts).
    pub fn results(&self, log_likelihoods: &[(SlidingPart, f64)]) -> Result<SlidingPerplexity> {
        let (scored, bytes) = (self.text.scored(), self.text.bytes());
        let mut results = Vec::new();
        for &rope in self.ropes {
            for &mode in self.modes {
                for &length in &self.text.settings.lengths {
                    let part = self.part(length, mode, rope)?;
                    let found = log_likelihoods.iter().find(|(known, _)| *known == part);
                    let log_likelihood = found.map_or(f64::NAN, |(_, value)| *value);
                    let factor = self.rope_settings.factor_of(length);
                    let factor = (rope != RopeMethod::None).then_some(factor);
                    let result = SlidingResult::new(length, mode, rope, factor);
                    results.push(result.scored(-log_likelihood, scored, bytes));
                }
            }
        }
        Ok(SlidingPerplexity {
            stride: self.text.settings.stride,
            lengths: self.text.settings.lengths.clone(),
            context_length: self.model.config().max_position_embeddings,
            original_length: self.rope_settings.original_length,
            documents: self.text.documents(),
            short_documents: self.text.short_documents(),
            windows: self.text.windows(),
            scored_tokens: scored,
            bytes: bytes.round() as usize,
            results,
        })
    }
}
