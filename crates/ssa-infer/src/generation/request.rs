//! A sequence that is being continued.

use super::Chunk;
use crate::{Draw, InferError, Result, Sampler};

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model produced a token that ends a text.
    Eos,
    /// A stop string was found, or the observer said so.
    Stop,
    /// The most tokens asked for.
    MaxTokens,
    /// The sequence is as long as the model's context.
    Context,
}

ssa_names::names!(FinishReason: "finish reason" {
    Eos = "eos",
    Stop = "stop",
    MaxTokens = "max_tokens",
    Context = "context",
});

/// A sequence and how it is continued.
#[derive(Clone, Debug)]
pub struct GenerationRequest<S> {
    pub(super) sequence: S,
    pub(super) sampler: Sampler,
    pub(super) ids: Vec<u32>,
    prompt_tokens: usize,
    /// The most tokens of the sequence.
    limit: Limit,
    eos_token_ids: Vec<u32>,
    /// Only ids below are drawn.
    pub(super) vocabulary: usize,
    pub(super) finished: Option<FinishReason>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    tokens: usize,
    reason: FinishReason,
}

/// What ends a request.
#[derive(Clone, Debug)]
pub struct GenerationLimits<'a> {
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// The most tokens of the sequence.
    pub context_length: usize,
    /// Tokens that end the text.
    pub eos_token_ids: &'a [u32],
    /// Only ids below are drawn: those that a tokenizer has, of a model that may have more.
    pub vocabulary: usize,
}

impl<S> GenerationRequest<S> {
    /// Continues `prompt`, of which the cache may already hold a beginning.
    ///
    /// # Errors
    /// [`InferError::EmptyPrompt`], or [`InferError::PromptTooLong`] if there is no room for one
    /// token more.
    pub fn new(
        sequence: S,
        prompt: Vec<u32>,
        sampler: Sampler,
        limits: &GenerationLimits<'_>,
    ) -> Result<Self> {
        let tokens = prompt.len();
        if tokens == 0 {
            return Err(InferError::EmptyPrompt);
        }
        if tokens >= limits.context_length {
            let limit = limits.context_length.saturating_sub(1);
            return Err(InferError::PromptTooLong { tokens, limit });
        }
        let limit = match tokens.checked_add(limits.max_tokens) {
            Some(tokens) if tokens <= limits.context_length => {
                Limit { tokens, reason: FinishReason::MaxTokens }
            }
            _ => Limit { tokens: limits.context_length, reason: FinishReason::Context },
        };
        Ok(Self {
            sequence,
            sampler,
            ids: prompt,
            prompt_tokens: tokens,
            limit,
            eos_token_ids: limits.eos_token_ids.to_vec(),
            vocabulary: limits.vocabulary,
            finished: (limits.max_tokens == 0).then_some(FinishReason::MaxTokens),
        })
    }

    /// The sequence.
    pub fn sequence(&self) -> S
    where
        S: Copy,
    {
        self.sequence
    }

    /// The prompt and the tokens generated so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The tokens generated so far, with the one that ended the text.
    pub fn generated(&self) -> &[u32] {
        &self.ids[self.prompt_tokens..]
    }

    /// Why the text ended; `None` before its end.
    pub fn finished(&self) -> Option<FinishReason> {
        self.finished
    }

    /// Tokens that can still be generated.
    pub(super) fn remaining(&self) -> usize {
        self.limit.tokens.saturating_sub(self.ids.len())
    }

    /// Whether a token ends the text.
    pub(super) fn is_eos(&self, id: u32) -> bool {
        self.eos_token_ids.contains(&id)
    }

    /// The tokens after the cached ones, so many, of which the last ones draw.
    pub(super) fn chunk(&self, cached: usize, tokens: usize, draws: usize) -> Chunk<'_, S>
    where
        S: Copy,
    {
        let Self { sequence, sampler, ids, vocabulary, .. } = self;
        let draw = Draw { sampler, vocabulary: *vocabulary };
        Chunk { sequence: *sequence, ids: &ids[..cached + tokens], cached, draws, draw }
    }

    /// Adds a token; ends the text if it was the last.
    pub(super) fn accept(&mut self, id: u32) {
        self.ids.push(id);
        if self.is_eos(id) {
            self.finished = Some(FinishReason::Eos);
        } else if self.remaining() == 0 {
            self.finished = Some(self.limit.reason);
        }
    }
}
