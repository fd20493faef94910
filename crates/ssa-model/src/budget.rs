//! What sparse attention may look at.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ssa_kernels::ops::attention::selection::{SelectionOptions, SelectionRule};

use crate::{ModelConfig, ModelError};

/// A budget of sparse attention: `block_counts` blocks of `block_size` tokens for every query.
///
/// Written `16x4`: blocks of 16 tokens, 4 of them. A model evaluates at any budget, whatever it was
/// trained at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SparseBudget {
    block_size: usize,
    block_counts: usize,
}

impl SparseBudget {
    /// The largest block size, and the largest number of blocks: 2^20.
    pub const LARGEST_PART: usize = 1 << 20;

    /// A budget from its two parts.
    ///
    /// # Errors
    /// [`ModelError::Budget`] unless both are from 1 to [`Self::LARGEST_PART`].
    pub fn new(block_size: usize, block_counts: usize) -> Result<Self, ModelError> {
        let possible = 1..=Self::LARGEST_PART;
        if !possible.contains(&block_size) || !possible.contains(&block_counts) {
            return Err(ModelError::Budget { text: format!("{block_size}x{block_counts}") });
        }
        Ok(Self { block_size, block_counts })
    }

    /// Tokens of a block.
    pub fn block_size(self) -> usize {
        self.block_size
    }

    /// Blocks a query attends to, its own included.
    pub fn block_counts(self) -> usize {
        self.block_counts
    }

    /// The largest number of tokens a query attends to.
    pub fn receptive_field(self) -> usize {
        self.block_size * self.block_counts
    }

    /// Checks that a selection rule can serve the budget: the kernel behind
    /// [`SelectionRule::Reference`] works on blocks of a power of two of tokens and on lists of a
    /// power of two of blocks, which are no longer than a block.
    ///
    /// # Errors
    /// [`ModelError::Selection`] names the part of the budget.
    pub fn check(self, rule: SelectionRule) -> Result<(), ModelError> {
        let refuse = |part, expected: String| {
            Err(ModelError::Selection { budget: self.to_string(), part, expected })
        };
        match rule {
            SelectionRule::Exact => Ok(()),
            _ if self.block_size < 2 || !self.block_size.is_power_of_two() => {
                refuse("block_size", "a power of two of at least 2".to_owned())
            }
            _ if self.block_counts > self.block_size => {
                refuse("block_counts", format!("at most block_size ({})", self.block_size))
            }
            _ if !self.block_counts.is_power_of_two() => {
                refuse("block_counts", "a power of two".to_owned())
            }
            SelectionRule::Reference => Ok(()),
        }
    }

    /// The same budget as options of block selection.
    pub fn selection(self, rule: SelectionRule) -> SelectionOptions {
        SelectionOptions { block_size: self.block_size, block_counts: self.block_counts, rule }
    }
}

impl ModelConfig {
    /// The budget the model was trained at.
    pub fn trained_budget(&self) -> SparseBudget {
        // A checked configuration has no zeros.
        SparseBudget { block_size: self.block_size, block_counts: self.block_counts }
    }
}

impl fmt::Display for SparseBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}x{}", self.block_size, self.block_counts))
    }
}

impl FromStr for SparseBudget {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let parts = text.split_once('x').and_then(|(size, counts)| {
            let number = |part: &str| part.parse::<usize>().ok();
            Some((number(size)?, number(counts)?))
        });
        let (block_size, block_counts) =
            parts.ok_or_else(|| ModelError::Budget { text: text.to_owned() })?;
        Self::new(block_size, block_counts)
            .map_err(|_| ModelError::Budget { text: text.to_owned() })
    }
}

impl TryFrom<String> for SparseBudget {
    type Error = ModelError;

    fn try_from(text: String) -> Result<Self, ModelError> {
        text.parse()
    }
}

impl From<SparseBudget> for String {
    fn from(budget: SparseBudget) -> Self {
        budget.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let budget: SparseBudget = "16x4".parse().unwrap();
        assert_eq!(
            (budget.block_size(), budget.block_counts(), budget.receptive_field()),
            (16, 4, 64)
        );
        assert_eq!(budget.to_string(), "16x4");
        assert_eq!(serde_json::to_string(&budget).unwrap(), "\"16x4\"");
        assert_eq!(serde_json::from_str::<SparseBudget>("\"16x4\"").unwrap(), budget);
    }

    #[test]
    fn the_reference_rule_serves_powers_of_two_up_to_the_block_size() {
        let check = |text: &str, rule| text.parse::<SparseBudget>().unwrap().check(rule);
        for text in ["16x1", "16x4", "16x16", "2x2"] {
            check(text, SelectionRule::Reference).unwrap();
        }
        for (text, part) in [
            ("12x2", "block_size"),
            ("1x1", "block_size"),
            ("16x3", "block_counts"),
            ("16x32", "block_counts"),
        ] {
            check(text, SelectionRule::Exact).unwrap();
            let error = check(text, SelectionRule::Reference).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(part), "{error}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_form() {
        for text in [
            "",
            "16",
            "x",
            "16x",
            "0x4",
            "16x0",
            "16X4",
            "16x4x2",
            "-1x4",
            " 16x4",
            "99999999999x99999999999",
            "16x1048577",
        ] {
            let error = text.parse::<SparseBudget>().unwrap_err().to_string();
            assert!(error.contains("BLOCK_SIZExBLOCK_COUNTS"), "{text}: {error}");
        }
    }
}
