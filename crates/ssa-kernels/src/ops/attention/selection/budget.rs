//! How much sparse attention may see.

use std::fmt;
use std::str::FromStr;

use ssa_names::serde::de::{Error, Unexpected};
use ssa_names::serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{SelectionOptions, SelectionRule};
use crate::KernelError;

/// A budget of sparse attention: `block_counts` blocks of `block_size` tokens for every query.
///
/// Written `16x4`: 4 blocks of 16 tokens. A model evaluates at any budget, whatever it was trained
/// at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SparseBudget {
    block_size: usize,
    block_counts: usize,
}

/// A text or a pair of numbers that is not a budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a sparse budget\nhint: write BLOCK_SIZExBLOCK_COUNTS with both at least 1, \
     and at most 1048576, such as \
     16x4 for 4 blocks of 16 tokens"
)]
pub struct InvalidBudget {
    /// What was given.
    pub text: String,
}

impl SparseBudget {
    /// The budget of the paper's models: 16 blocks of 16 tokens.
    pub const PAPER: Self = Self { block_size: 16, block_counts: 16 };

    /// The largest block size and the largest number of blocks in settings, flags and files.
    pub const LARGEST_PART: usize = 1 << 20;

    /// A budget from its two parts.
    ///
    /// # Errors
    /// [`InvalidBudget`] if a part is 0 or their product overflows.
    pub fn new(block_size: usize, block_counts: usize) -> Result<Self, InvalidBudget> {
        match block_size.checked_mul(block_counts) {
            None | Some(0) => Err(InvalidBudget { text: format!("{block_size}x{block_counts}") }),
            Some(_) => Ok(Self { block_size, block_counts }),
        }
    }

    /// Tokens of a block.
    pub fn block_size(self) -> usize {
        self.block_size
    }

    /// Blocks that a query attends to, its own included.
    pub fn block_counts(self) -> usize {
        self.block_counts
    }

    /// The largest number of tokens that a query attends to.
    pub fn receptive_field(self) -> usize {
        self.block_size * self.block_counts
    }

    /// Which part of the budget a selection rule cannot serve, and what it could. The kernel
    /// behind [`SelectionRule::Reference`] works on blocks of a power of two of tokens, and on
    /// lists of a power of two of blocks that are no longer than a block.
    pub fn refused_by(self, rule: SelectionRule) -> Option<(&'static str, String)> {
        let (size, counts) = (self.block_size(), self.block_counts());
        match rule {
            SelectionRule::Exact => None,
            _ if size < 2 || !size.is_power_of_two() => {
                Some(("block_size", "a power of two of at least 2".to_owned()))
            }
            _ if counts > size => Some(("block_counts", format!("at most block_size ({size})"))),
            _ if !counts.is_power_of_two() => Some(("block_counts", "a power of two".to_owned())),
            SelectionRule::Reference => None,
        }
    }

    /// Block selection at this budget.
    pub fn selection(self, rule: SelectionRule) -> SelectionOptions {
        SelectionOptions { budget: self, rule }
    }
}

impl From<InvalidBudget> for KernelError {
    fn from(invalid: InvalidBudget) -> Self {
        let expected = "two numbers of at least 1 whose product fits in 64 bits";
        Self::value("SparseBudget::new", "budget", expected, invalid.text)
    }
}

impl fmt::Display for SparseBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}x{}", self.block_size, self.block_counts))
    }
}

impl FromStr for SparseBudget {
    type Err = InvalidBudget;

    fn from_str(text: &str) -> Result<Self, InvalidBudget> {
        let part = |text: &str| text.parse().ok().filter(|&part| part <= Self::LARGEST_PART);
        let budget = text
            .split_once('x')
            .and_then(|(size, counts)| Self::new(part(size)?, part(counts)?).ok());
        budget.ok_or_else(|| InvalidBudget { text: text.to_owned() })
    }
}

impl Serialize for SparseBudget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SparseBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            D::Error::invalid_value(Unexpected::Str(&text), &"a sparse budget such as 16x4")
        })
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
        ] {
            let error = text.parse::<SparseBudget>().unwrap_err().to_string();
            assert!(error.contains("BLOCK_SIZExBLOCK_COUNTS"), "{text}: {error}");
        }
    }

    #[test]
    fn parts_are_positive_and_their_product_fits() {
        for (block_size, block_counts) in [(4, 0), (0, 2), (3, usize::MAX)] {
            let refused = SparseBudget::new(block_size, block_counts).unwrap_err();
            assert_eq!(refused.text, format!("{block_size}x{block_counts}"));
        }
        assert_eq!(SparseBudget::new(usize::MAX, 1).unwrap().receptive_field(), usize::MAX);
    }
}
