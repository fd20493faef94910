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
    /// A budget from its two parts.
    ///
    /// # Errors
    /// [`ModelError::Budget`] if a part is 0.
    pub fn new(block_size: usize, block_counts: usize) -> Result<Self, ModelError> {
        if block_size == 0 || block_counts == 0 || block_size.checked_mul(block_counts).is_none() {
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
}
