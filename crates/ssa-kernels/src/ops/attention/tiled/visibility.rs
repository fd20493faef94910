//! Which keys a query sees.

use std::ops::Range;

/// The range of keys that a query sees, by its position in its document. It ends at the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// Keys are tokens: the last `window_size`, the query's own included. At least 1.
    Tokens {
        /// `usize::MAX` for full attention.
        window_size: usize,
    },
    /// Keys are blocks of tokens: those that are complete at the query's token.
    Blocks {
        /// At least 1.
        block_size: usize,
    },
}

impl Visibility {
    /// Number of keys of a document of that many tokens.
    pub(super) fn keys(self, tokens: usize) -> usize {
        match self {
            Self::Tokens { .. } => tokens,
            Self::Blocks { block_size } => tokens.div_ceil(block_size),
        }
    }

    /// The keys of its document that the query at a position sees; neither end moves back as
    /// positions advance.
    pub(super) fn seen(self, position: usize) -> Range<usize> {
        match self {
            Self::Tokens { window_size } => {
                (position + 1).saturating_sub(window_size)..position + 1
            }
            Self::Blocks { block_size } => 0..(position + 1) / block_size,
        }
    }

    /// The positions, in a document of that many tokens, that see any of the keys `first..=last`.
    pub(super) fn seen_by(self, first: usize, last: usize, tokens: usize) -> Range<usize> {
        let (start, end) = match self {
            Self::Tokens { window_size } => (first, last.saturating_add(window_size)),
            Self::Blocks { block_size } => ((first + 1) * block_size - 1, tokens),
        };
        let start = start.min(tokens);
        start..end.clamp(start, tokens)
    }
}
