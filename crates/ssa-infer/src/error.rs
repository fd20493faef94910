//! The error type of this crate.

use std::path::PathBuf;

use ssa_kernels::KernelError;
use ssa_kernels::kv_cache::SequenceId;
use ssa_kernels::ops::sampling::SamplingError;
use ssa_model::ModelError;

use crate::filled_by::FilledBy;

/// Why a model cannot run or generate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The model cannot run like this.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An op failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A sequence gets no tokens.
    #[error("{id}: a call must have at least one token for each of its sequences")]
    NoTokens {
        /// The sequence.
        id: SequenceId,
    },
    /// A token cannot be scored.
    #[error(
        "the logits of a token to score are not numbers\nhint: look for NaN and infinities in the \
         weights of the model"
    )]
    NotANumber,
    /// A token cannot be drawn, or not like this.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A token is not in the vocabulary.
    #[error("{id}: token {token} is not in the vocabulary of {vocab_size} tokens")]
    Token {
        /// The sequence.
        id: SequenceId,
        /// The token.
        token: u32,
        /// Tokens of the vocabulary.
        vocab_size: usize,
    },
    /// A sequence would be longer than the model allows.
    #[error("{id}: {tokens} tokens are more than the {positions} positions of the model")]
    TooLong {
        /// The sequence.
        id: SequenceId,
        /// The tokens it would have.
        tokens: usize,
        /// `max_position_embeddings` of the model.
        positions: usize,
    },
    /// The cached keys and values were computed with another attention.
    #[error(
        "{id}: its cache was filled by {filled}, the call asks for {asked}: keys and values of all \
         layers but the first depend on it\nhint: recompute the cache, or keep it on purpose"
    )]
    Filled {
        /// The sequence.
        id: SequenceId,
        /// What filled the cache.
        filled: FilledBy,
        /// What the call asks for.
        asked: FilledBy,
    },
    /// A sparse budget has another block size than the pages of the cache.
    #[error(
        "block size {block_size} differs from the {page_size} tokens of a page of the cache\n\
         hint: make the engine with pages of {block_size} tokens"
    )]
    BlockSize {
        /// Of the budget.
        block_size: usize,
        /// Of the cache.
        page_size: usize,
    },
    /// A setting is outside its range.
    #[error("{setting} is {actual}, expected {expected}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// The range allowed.
        expected: &'static str,
        /// The value given.
        actual: String,
    },
    /// `generation_config.json` cannot be used.
    #[error("{}: {cause}", path.display())]
    GenerationConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// There is nothing to continue.
    #[error("the prompt has no tokens\nhint: give a prompt of at least one token")]
    EmptyPrompt,
    /// A prompt leaves no room for another token.
    #[error("the prompt has {tokens} tokens, and the model's context has room for {limit}")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens possible.
        limit: usize,
    },
}

impl InferError {
    pub(crate) fn setting(
        setting: &'static str,
        expected: &'static str,
        actual: impl ToString,
    ) -> Self {
        Self::Setting { setting, expected, actual: actual.to_string() }
    }
}
