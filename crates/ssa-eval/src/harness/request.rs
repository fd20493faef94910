//! Requests to a model.

use serde::Serialize;

use super::encode::Continuation;
use super::target::Target;

/// The requests of a row.
#[derive(Debug)]
pub(super) struct PreparedDocument {
    pub(super) requests: Vec<Request>,
    pub(super) target: Target,
}

/// A request as text and as tokens.
#[derive(Debug)]
pub(super) enum Request {
    Continuation { context: String, continuation: String, tokens: Continuation },
    Rolling { text: String, windows: Vec<Continuation> },
    Generation { context: String, tokens: Vec<u32> },
}

/// What did not fit into the model's context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Truncation {
    /// Requests whose context lost its beginning.
    pub requests: usize,
    /// Tokens lost.
    pub tokens: usize,
}

/// How texts are generated.
#[derive(Clone, Debug, Default)]
pub(super) struct Generation {
    /// The strings that end a text.
    pub(super) until: Vec<String>,
    pub(super) max_tokens: usize,
}
