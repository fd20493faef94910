//! What sparse attention may look at.

use std::fmt;

/// A budget of sparse attention, written `16x4`: blocks of 16 tokens, 4 of them for every query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Tokens of a block, at least 1.
    pub block_size: usize,
    /// Blocks a query attends to, its own included; at least 1.
    pub block_counts: usize,
}

impl Budget {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (size, counts) = text.split_once('x')?;
        let budget = Self { block_size: size.parse().ok()?, block_counts: counts.parse().ok()? };
        (budget.block_size > 0 && budget.block_counts > 0).then_some(budget)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.block_size, self.block_counts)
    }
}
