//! What each verb does: one file per verb.

mod analyze;
mod bench;
mod data;
mod device;
mod doctor;
mod eval;
mod forward;
mod held_out;
mod monitor;
mod selftest;
mod train;

use anyhow::{Context, Result};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::SparseBudget;

use crate::args::{Cli, Command, EvalCommand};
use crate::exit::UsageError;

/// Runs the command line.
pub(crate) fn run(cli: Cli) -> Result<()> {
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .with_context(|| format!("cannot start {threads} threads"))?;
    }
    match cli.command {
        Command::Data(args) => data::run(&args.command, cli.threads),
        Command::Train(args) => train::run(&args, cli.device),
        Command::Eval(args) => match args.command {
            EvalCommand::Perplexity(args) => eval::perplexity(&args, cli.device),
        },
        Command::Analyze(args) => analyze::run(&args, cli.device),
        Command::Forward(args) => forward::run(&args, cli.device),
        Command::Selftest(args) => selftest::run(&args, cli.device),
        Command::Bench(args) => bench::run(&args, cli.device),
        Command::Doctor(args) => doctor::run(&args),
    }
}

/// Refuses budgets that the selection rule cannot serve, before any work is done.
fn check_budgets(budgets: &[SparseBudget], rule: SelectionRule) -> Result<()> {
    let refused = |budget: &&SparseBudget| budget.block_counts() > budget.block_size();
    match budgets.iter().find(refused).filter(|_| rule == SelectionRule::Reference) {
        None => Ok(()),
        Some(budget) => Err(UsageError(format!(
            "the budget {budget} does not exist with reference selection: it takes at most as many blocks as a block \
             has tokens ({}); lower the number of blocks, or use exact selection",
            budget.block_size()
        ))
        .into()),
    }
}
