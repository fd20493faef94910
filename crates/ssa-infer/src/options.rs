//! How the attentions of a call run.

use ssa_kernels::ops::attention::cached::{PageBudget, PageOptions};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{AttendedKeys, AttentionMode, AttentionOptions, ModelConfig};
use ssa_model::{AttentionSizes, Method};

use crate::filled_by::FilledBy;
use crate::{Budget, InferError, Result};

/// How the attentions of a call run. Every call may choose anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CallOptions {
    /// Full or sparse attention.
    pub mode: AttentionMode,
    /// Budget and rule of block selection.
    pub pages: PageOptions,
    /// Tokens of the sliding window of methods that have one.
    pub window_size: usize,
    /// What to do with sequences whose cache was filled by another attention.
    pub fill_change: FillChange,
}

/// What to do with a sequence whose cache was filled by another attention than a call asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FillChange {
    /// Fail.
    #[default]
    Refuse,
    /// Use it as it is: the result is that of neither attention.
    Keep,
    /// Compute it again from the tokens, first.
    Recompute,
}

impl CallOptions {
    /// The options of a model run, for pages of its block size.
    ///
    /// # Errors
    /// [`InferError::BlockSize`] if the budget has another block size than the pages.
    pub fn new(options: &AttentionOptions, page_size: usize) -> Result<Self> {
        let block_size = options.selection.budget.block_size();
        if block_size != page_size {
            return Err(InferError::BlockSize { block_size, page_size });
        }
        let budget = PageBudget::Counts(options.selection.budget.block_counts());
        Ok(Self {
            mode: options.mode,
            pages: PageOptions { budget, rule: options.selection.rule },
            window_size: options.window_size,
            fill_change: FillChange::Refuse,
        })
    }

    /// The options of a call with a budget that a setting names, by default the model's.
    pub fn with_budget(
        config: &ModelConfig,
        mode: AttentionMode,
        budget: Option<Budget>,
        rule: SelectionRule,
    ) -> Self {
        let budget = budget.unwrap_or(Budget::Blocks(config.budget));
        Self {
            mode,
            pages: PageOptions { budget: budget.page_budget(), rule },
            window_size: config.window_size,
            fill_change: FillChange::Refuse,
        }
    }

    /// What a call with these options fills the cache of a model by.
    pub fn filled_by(&self, method: Method, config: &ModelConfig) -> FilledBy {
        let sizes = AttentionSizes { window_size: self.window_size, ..config.attention_sizes() };
        let keys = || method.attentions(self.mode).iter().map(|kind| kind.keys(&sizes));
        let selects = keys().any(|keys| matches!(keys, AttendedKeys::Selected { .. }));
        let has_window = keys().any(|keys| matches!(keys, AttendedKeys::Last(_)));
        FilledBy {
            mode: self.mode,
            pages: selects.then_some(self.pages),
            window_size: has_window.then_some(self.window_size),
        }
    }
}
