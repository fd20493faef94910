//! The error type of this crate.

use std::path::PathBuf;

use ssa_model::ModelError;

/// Why a model cannot run or generate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The model refuses its input.
    #[error(transparent)]
    Model(#[from] ModelError),
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
    /// A sequence leaves no room for a token.
    #[error("the prompt has {tokens} tokens, and the model's context has room for {limit}")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens possible.
        limit: usize,
    },
    /// A token cannot be drawn.
    #[error(
        "the logits after {position} tokens {problem}\nhint: look for NaN and infinities in the \
         weights of the model"
    )]
    Logits {
        /// Tokens of the sequence.
        position: usize,
        /// What is wrong with them.
        problem: &'static str,
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
