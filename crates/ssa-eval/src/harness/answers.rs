//! What a model answers to a request.

use serde::{Deserialize, Serialize};

/// What a model answers to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// The log-likelihood of a continuation in nats, and whether every token of it is the most
    /// likely one.
    Continuation(f64, bool),
    /// The log-likelihood of a whole text in nats.
    Rolling(f64),
    /// A generated text.
    Text(String),
}

impl Answer {
    /// The log-likelihood; of a text there is none.
    pub fn log_likelihood(&self) -> f64 {
        match self {
            Self::Continuation(log_likelihood, _) | Self::Rolling(log_likelihood) => {
                *log_likelihood
            }
            Self::Text(_) => f64::NAN,
        }
    }

    /// Whether a continuation is the one of greedy decoding.
    pub(super) fn is_greedy(&self) -> bool {
        matches!(self, Self::Continuation(_, true))
    }

    /// The generated text; empty for others.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }
}
