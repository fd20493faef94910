//! The attentions of an evaluation.

use anyhow::Result;
use ssa_eval::harness::InferenceMode;
use ssa_infer::Budget;
use ssa_model::{AttentionMode, ModelConfig};

use crate::args::AttentionsArgs;
use crate::commands::{check_budget, require_mode};
use crate::exit::UsageError;

/// The attentions: full unless the flags say otherwise, then each budget.
pub(super) fn modes(args: &AttentionsArgs, config: &ModelConfig) -> Result<Vec<InferenceMode>> {
    let method = config.attention_method;
    let mut budgets: Vec<Budget> = args.budgets.iter().flat_map(|list| list.0.clone()).collect();
    let mut attentions = args.attention.clone();
    if attentions.is_empty() {
        let full = method.has_mode(AttentionMode::Full);
        attentions.extend(full.then_some(AttentionMode::Full));
        if !full || !budgets.is_empty() {
            attentions.push(AttentionMode::Sparse);
        }
    }
    attentions.iter().try_for_each(|&mode| require_mode(method, mode))?;
    if !budgets.is_empty() && !attentions.contains(&AttentionMode::Sparse) {
        let message = "--budget has no effect on full attention\nhint: pass --attention sparse";
        return Err(UsageError(message.to_owned()).into());
    }
    if budgets.is_empty() {
        budgets.push(Budget::Blocks(config.budget));
    }
    let mut modes: Vec<InferenceMode> = Vec::new();
    for mode in attentions {
        let budgets = match mode {
            AttentionMode::Full => vec![None],
            AttentionMode::Sparse => budgets.iter().copied().map(Some).collect(),
        };
        for budget in budgets {
            budget.map_or(Ok(()), |budget| check_budget(budget, args.selection))?;
            let mode = InferenceMode { mode, budget };
            if !modes.contains(&mode) {
                modes.push(mode);
            }
        }
    }
    Ok(modes)
}
