//! How many pages a query selects.

use super::super::selection::{SelectionOptions, SelectionRule, SparseBudget};
use crate::{KernelError, Result};

/// How many pages a query attends to, its own included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PageBudget {
    /// So many, at least 1.
    Counts(usize),
    /// As many, in order of importance, as the estimated attention mass asks for.
    Mass {
        /// The part of the estimated mass to keep, above 0 and at most 1.
        mass: f32,
        /// At least so many pages, at least 1.
        min: usize,
        /// At most so many pages.
        max: usize,
    },
}

/// How many pages a query attends to, and which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PageOptions {
    /// Their number.
    pub budget: PageBudget,
    /// The rule that chooses them. A budget by mass needs the exact one.
    pub rule: SelectionRule,
}

/// What stops a selection before its largest number of pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageMass {
    pub(crate) mass: f32,
    pub(crate) min: usize,
}

impl PageOptions {
    /// The most pages of `page_size` tokens that a query selects.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the budget is impossible, or not one of the rule.
    pub fn most_pages(&self, page_size: usize) -> Result<usize> {
        Ok(self.selection("PageOptions::most_pages", page_size)?.0.selected_blocks())
    }

    /// The largest number of pages of `page_size` tokens with the rule, and what stops before it.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the budget is impossible, or not one of the rule.
    pub(crate) fn selection(
        &self,
        op: &'static str,
        page_size: usize,
    ) -> Result<(SelectionOptions, Option<PageMass>)> {
        const ARGUMENT: &str = "options.budget";
        let (counts, mass) = match self.budget {
            PageBudget::Counts(0) => {
                return Err(KernelError::value(op, ARGUMENT, "at least 1 page", 0));
            }
            PageBudget::Counts(counts) => (counts, None),
            PageBudget::Mass { .. } if self.rule != SelectionRule::Exact => {
                let expected = format!("a number of pages, as the {} rule needs", self.rule);
                return Err(KernelError::value(op, ARGUMENT, expected, "a mass"));
            }
            PageBudget::Mass { mass, min, max } => {
                if !(mass > 0.0 && mass <= 1.0 && (1..=max).contains(&min)) {
                    let expected = "0 < mass <= 1 and 1 <= min <= max";
                    let actual = format!("mass = {mass}, min = {min}, max = {max}");
                    return Err(KernelError::value(op, ARGUMENT, expected, actual));
                }
                (max, Some(PageMass { mass, min }))
            }
        };
        let selection = SparseBudget::new(page_size, counts)?.selection(self.rule);
        selection.check(op)?;
        Ok((selection, mass))
    }
}
