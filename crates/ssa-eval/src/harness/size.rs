//! What requests take in a cache.

use super::encode::Continuation;
use super::request::{PreparedDocument, Request};

/// What sequences take in a cache.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// Tokens of all, in whole pages.
    pub(super) tokens: usize,
    /// Tokens of the largest part that is computed in one call.
    pub(super) largest: usize,
    pub(super) sequences: usize,
}

impl Size {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            largest: self.largest.max(other.largest),
            sequences: self.sequences + other.sequences,
        }
    }

    /// A sequence of so many tokens.
    pub(super) fn of_sequence(tokens: usize, page_size: usize) -> Self {
        let tokens = tokens.next_multiple_of(page_size);
        Self { tokens, largest: tokens, sequences: 1 }
    }

    /// The requests of a document, of which texts have up to `generated` tokens. The windows of a
    /// text can be computed apart.
    pub(super) fn of_document(
        document: &PreparedDocument,
        generated: usize,
        page_size: usize,
    ) -> Self {
        let sequence = |tokens| Self::of_sequence(tokens, page_size);
        let mut size = Self::default();
        for request in &document.requests {
            size = match request {
                // A sequence for each request is at least as much as one with forks.
                Request::Continuation { tokens, .. } => {
                    let sum = size.and(sequence(tokens.len()));
                    Self { largest: sum.tokens, ..sum }
                }
                Request::Rolling { windows, .. } => {
                    let windows = windows.iter().map(Continuation::len).map(sequence);
                    windows.fold(size, Self::and)
                }
                Request::Generation { tokens, .. } => size.and(sequence(tokens.len() + generated)),
            };
        }
        size
    }
}
