//! Which keys a query attends to, and how many there are.

/// The keys that a query attends to, up to its own position within its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttendedKeys {
    /// All.
    All,
    /// Those of at most `counts` blocks of `size` tokens: the query's own block up to the query,
    /// and complete blocks before it.
    Selected {
        /// Tokens of a block.
        size: u64,
        /// Blocks, the query's own included.
        counts: u64,
    },
    /// One mean per block of `size` tokens that is complete at the query.
    BlockMeans {
        /// Tokens of a block.
        size: u64,
    },
    /// The most recent ones, the query's own included.
    Last(u64),
}

impl AttendedKeys {
    /// Number of query-key pairs in a document of `tokens` tokens.
    pub fn pairs(self, tokens: u64) -> u64 {
        match self {
            Self::All => up_to(tokens),
            Self::Last(window) => {
                let short = tokens.min(window);
                up_to(short) + (tokens - short) * window
            }
            Self::BlockMeans { size } => {
                let (blocks, rest) = (tokens / size, tokens % size);
                size * up_to_before(blocks) + blocks + rest * blocks
            }
            Self::Selected { size, counts } => {
                let (blocks, rest) = (tokens / size, tokens % size);
                let others = counts.saturating_sub(1);
                // A query in block b attends to min(b, others) complete blocks besides its own.
                let near = blocks.min(others);
                let whole = up_to_before(near) + (blocks - near) * others;
                let own = blocks * up_to(size) + up_to(rest);
                size * size * whole + rest * size * near + own
            }
        }
    }
}

/// `1 + 2 + ... + n`.
fn up_to(n: u64) -> u64 {
    n * (n + 1) / 2
}

/// `0 + 1 + ... + (n - 1)`.
fn up_to_before(n: u64) -> u64 {
    n * n.saturating_sub(1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of keys of the query at position `t`, by the definition.
    fn keys_of(keys: AttendedKeys, t: u64) -> u64 {
        match keys {
            AttendedKeys::All => t + 1,
            AttendedKeys::Last(window) => (t + 1).min(window),
            AttendedKeys::BlockMeans { size } => (t + 1) / size,
            AttendedKeys::Selected { size, counts } => {
                (t / size).min(counts - 1) * size + t % size + 1
            }
        }
    }

    #[test]
    fn pairs_are_counted_as_if_one_by_one() {
        let selected = |size, counts| AttendedKeys::Selected { size, counts };
        let kinds = [
            AttendedKeys::All,
            AttendedKeys::Last(1),
            AttendedKeys::Last(7),
            AttendedKeys::BlockMeans { size: 4 },
            selected(4, 1),
            selected(4, 3),
            selected(5, 64),
        ];
        for keys in kinds {
            for tokens in 0..70 {
                let expected: u64 = (0..tokens).map(|t| keys_of(keys, t)).sum();
                assert_eq!(keys.pairs(tokens), expected, "{keys:?} of {tokens}");
            }
        }
    }
}
