//! Requests to a model.

use serde::Serialize;

use super::encode::Continuation;
use super::generated::Cell;
use super::target::Target;

/// The requests of a row.
#[derive(Debug)]
pub(super) struct PreparedDocument {
    pub(super) requests: Vec<Request>,
    pub(super) target: Target,
    /// Its place in the grid of generated documents.
    pub(super) cell: Option<Cell>,
    /// Whether a context does not fit into the model's.
    pub(super) truncated: bool,
}

/// A request as text and as tokens.
#[derive(Debug)]
pub(super) enum Request {
    Continuation { context: String, continuation: String, tokens: Continuation },
    Rolling { text: String, windows: Vec<Continuation> },
    Generation { context: String, tokens: Vec<u32> },
}

/// The part of a context that is dropped if it does not fit into the model's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Truncate {
    /// The beginning, as in lm-evaluation-harness.
    #[default]
    Start,
    /// The middle, as in LongBench: the text of the first and the last tokens is encoded again.
    Middle,
}

ssa_names::names!(Truncate: "truncate" { Start = "start", Middle = "middle" });

/// What did not fit into the model's context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Truncation {
    /// Requests whose context lost its beginning, or its middle if the task says so.
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
