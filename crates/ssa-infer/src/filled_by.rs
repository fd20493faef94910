//! What filled a cache.

use std::fmt;

use ssa_kernels::ops::attention::cached::{PageBudget, PageOptions};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::AttentionMode;

/// The attention that computed cached keys and values: as much of the options as they depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FilledBy {
    pub(crate) mode: AttentionMode,
    pub(crate) pages: Option<PageOptions>,
    pub(crate) window_size: Option<usize>,
}

impl fmt::Display for FilledBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} attention", self.mode)?;
        if let Some(PageOptions { budget, rule }) = self.pages {
            match budget {
                PageBudget::Counts(counts) => write!(f, ", {counts} blocks")?,
                PageBudget::Mass { mass, min, max } => {
                    write!(f, ", {min} to {max} blocks for a mass of {mass}")?;
                }
            }
            if rule != SelectionRule::Exact {
                write!(f, ", {rule} selection")?;
            }
        }
        match self.window_size {
            Some(window_size) => write!(f, ", a window of {window_size} tokens"),
            None => Ok(()),
        }
    }
}
