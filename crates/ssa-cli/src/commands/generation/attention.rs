//! The attentions that a text is generated and drafted with.

use anyhow::Result;
use ssa_infer::{Budget, CallOptions};
use ssa_model::{AttentionMode, Method, ModelConfig};

use crate::args::GenerationArgs;
use crate::commands::{check_budget, require_mode};
use crate::exit::UsageError;

/// The attentions of both passes.
#[derive(Clone, Copy)]
pub(in crate::commands) struct Attention {
    pub(in crate::commands) target: CallOptions,
    pub(super) draft: CallOptions,
    /// Tokens of a block, which is a page of the cache.
    pub(in crate::commands) page_size: usize,
    /// The budget of the passes with sparse attention.
    pub(in crate::commands) budget: Budget,
}

impl Attention {
    pub(super) fn choose(args: &GenerationArgs, config: &ModelConfig) -> Result<Self> {
        let method = config.attention_method;
        let mode = mode(args, method);
        require_mode(method, mode)?;
        check_flags(args, method, mode)?;
        let budget = args.budget.unwrap_or(Budget::Blocks(config.budget));
        check_budget(budget, args.selection)?;
        let options = |mode| CallOptions::with_budget(config, mode, Some(budget), args.selection);
        Ok(Self {
            target: options(mode),
            draft: options(AttentionMode::Sparse),
            page_size: budget.block_size().unwrap_or(config.budget.block_size()),
            budget,
        })
    }

    /// Whether a pass reads selected blocks.
    pub(in crate::commands) fn is_sparse(&self, drafts: usize) -> bool {
        drafts > 0 || self.target.mode == AttentionMode::Sparse
    }
}

fn mode(args: &GenerationArgs, method: Method) -> AttentionMode {
    match args.attention {
        Some(mode) => mode,
        None if args.budget.is_some() && args.speculate.is_none() => AttentionMode::Sparse,
        None if method.has_mode(AttentionMode::Full) => AttentionMode::Full,
        None => method.main_mode(),
    }
}

/// Refuses flags that do nothing or contradict each other.
fn check_flags(args: &GenerationArgs, method: Method, mode: AttentionMode) -> Result<()> {
    let full = mode == AttentionMode::Full;
    let message = match (args.speculate, args.budget) {
        (Some(_), _) if !method.has_mode(AttentionMode::Full) => format!(
            "--speculate checks drafts with full attention, and method {method} has none\n\
             hint: leave out --speculate"
        ),
        (Some(_), _) if !full => format!(
            "--speculate checks drafts with full attention, but the text is generated with {mode} \
             attention\nhint: pass --attention full, or leave out --speculate"
        ),
        (Some(_), _) if !method.has_mode(AttentionMode::Sparse) => format!(
            "--speculate drafts with sparse attention, and method {method} has none\n\
             hint: leave out --speculate"
        ),
        (None, Some(budget)) if full => format!(
            "--budget {budget} has no effect on full attention\nhint: pass --attention sparse, or \
             --speculate N to draft with this budget"
        ),
        _ => return Ok(()),
    };
    Err(UsageError(message).into())
}
