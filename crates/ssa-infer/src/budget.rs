//! Budgets of sparse attention as settings write them.

use std::fmt;
use std::str::FromStr;

use ssa_kernels::ops::attention::cached::PageBudget;
use ssa_kernels::ops::attention::selection::SparseBudget;
use ssa_names::serde::{Serialize, Serializer};

/// A budget of sparse attention: a number of blocks, or a part of the attention mass.
///
/// Written `16x4` for 4 blocks of 16 tokens, or `mass=0.95,4..64` for as many blocks as keep an
/// estimated 95 % of the attention mass, at least 4 and at most 64, of the model's block size. By
/// Theorem 1 of the paper the error of sparse attention grows with the mass that it drops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// So many blocks of so many tokens.
    Blocks(SparseBudget),
    /// As many blocks as keep a part of the attention mass.
    Mass {
        /// The part to keep, above 0 and at most 1.
        mass: f32,
        /// At least so many blocks.
        min: usize,
        /// At most so many blocks.
        max: usize,
    },
}

/// A text that is not a budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a sparse budget\nhint: write BLOCK_SIZExBLOCK_COUNTS such as 16x4, or \
     mass=PART,MIN..MAX such as mass=0.95,4..64 for as many blocks, from 4 to 64, as keep 95 % of \
     the attention"
)]
pub struct InvalidBudget {
    text: String,
}

impl Budget {
    /// The block size that it names; `None` for that of the model.
    pub fn block_size(self) -> Option<usize> {
        match self {
            Self::Blocks(budget) => Some(budget.block_size()),
            Self::Mass { .. } => None,
        }
    }

    /// The same for cached attention.
    pub fn page_budget(self) -> PageBudget {
        match self {
            Self::Blocks(budget) => PageBudget::Counts(budget.block_counts()),
            Self::Mass { mass, min, max } => PageBudget::Mass { mass, min, max },
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks(budget) => budget.fmt(f),
            Self::Mass { mass, min, max } => f.pad(&format!("mass={mass},{min}..{max}")),
        }
    }
}

impl FromStr for Budget {
    type Err = InvalidBudget;

    fn from_str(text: &str) -> Result<Self, InvalidBudget> {
        let budget = match text.strip_prefix("mass=") {
            None => text.parse().ok().map(Self::Blocks),
            Some(mass) => parse_mass(mass),
        };
        budget.ok_or_else(|| InvalidBudget { text: text.to_owned() })
    }
}

/// `0.95,4..64`.
fn parse_mass(text: &str) -> Option<Budget> {
    let (mass, range) = text.split_once(',')?;
    let (min, max) = range.split_once("..")?;
    let mass: f32 = mass.parse().ok()?;
    let [min, max]: [usize; 2] = [min.parse().ok()?, max.parse().ok()?];
    let possible =
        mass > 0.0 && mass <= 1.0 && 1 <= min && min <= max && max <= SparseBudget::LARGEST_PART;
    possible.then_some(Budget::Mass { mass, min, max })
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["16x4", "mass=0.95,4..64", "mass=1,1..1"] {
            assert_eq!(text.parse::<Budget>().unwrap().to_string(), text);
        }
        assert_eq!("32x4".parse::<Budget>().unwrap().block_size(), Some(32));
        let mass = "mass=0.5,2..8".parse::<Budget>().unwrap();
        assert_eq!(mass, Budget::Mass { mass: 0.5, min: 2, max: 8 });
        assert_eq!(mass.page_budget(), PageBudget::Mass { mass: 0.5, min: 2, max: 8 });
    }

    #[test]
    fn anything_else_is_refused_with_the_forms() {
        for text in [
            "",
            "16",
            "mass=",
            "mass=0.9",
            "mass=0.9,4",
            "mass=0,1..2",
            "mass=1.1,1..2",
            "mass=NaN,1..2",
            "mass=0.9,0..2",
            "mass=0.9,3..2",
            "mass=0.9,1..99999999",
            "mass=0.9,-1..2",
        ] {
            let error = text.parse::<Budget>().unwrap_err().to_string();
            assert!(error.contains("mass=0.95,4..64"), "{text}: {error}");
        }
    }
}
