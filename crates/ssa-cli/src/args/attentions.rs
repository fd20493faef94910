//! Attentions and budgets of an evaluation.

use std::str::FromStr;

use clap::Args;
use ssa_infer::{Budget, InvalidBudget};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::AttentionMode;

use super::named;

/// The attentions to evaluate with.
#[derive(Debug, Args)]
pub(crate) struct AttentionsArgs {
    /// Attention to evaluate with, one or both. Default: full, and sparse if --budget is given.
    #[arg(long, value_name = "MODE,...", value_delimiter = ',')]
    #[arg(value_parser = named::<AttentionMode>())]
    pub(crate) attention: Vec<AttentionMode>,
    /// Budgets of sparse attention, block size x number of blocks, such as 16x4,16x8, or the share
    /// of the attention to keep within a number of blocks, such as mass=0.95,4..64. Default: the
    /// model's.
    #[arg(long = "budget", alias = "budgets", value_name = "BUDGET,...")]
    pub(crate) budgets: Vec<BudgetList>,
    /// Rule for block selection: exact top-k, or the approximation in the released kernel, for
    /// parity with published checkpoints.
    #[arg(long, value_name = "RULE", default_value_t = SelectionRule::Exact)]
    #[arg(value_parser = named::<SelectionRule>())]
    pub(crate) selection: SelectionRule,
}

/// Budgets separated by commas. One by attention mass has a comma itself.
#[derive(Clone, Debug)]
pub(crate) struct BudgetList(pub(crate) Vec<Budget>);

impl FromStr for BudgetList {
    type Err = InvalidBudget;

    fn from_str(text: &str) -> Result<Self, InvalidBudget> {
        let mut budgets = Vec::new();
        let mut parts = text.split(',');
        while let Some(part) = parts.next() {
            let range = if part.starts_with("mass=") { parts.next() } else { None };
            let budget = range.map_or_else(|| part.to_owned(), |range| format!("{part},{range}"));
            budgets.push(budget.parse()?);
        }
        Ok(Self(budgets))
    }
}
