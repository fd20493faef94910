//! What each verb does: one file per verb.

mod about;
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
use ssa_report::number::counted;

use crate::args::{Cli, Command, ComputeArgs, DeviceChoice, EvalCommand, ThreadsArgs};
use crate::exit::UsageError;

/// Runs the command line.
pub(crate) fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(args) => train::run(&args, start(&args.compute)?),
        Command::Eval(args) => match args.command {
            EvalCommand::Perplexity(args) => {
                eval::perplexity(&args, start(&args.held_out.compute)?)
            }
        },
        Command::Analyze(args) => analyze::run(&args, start(&args.held_out.compute)?),
        Command::Data(args) => data::run(&args.command),
        Command::Config(args) => about::config(&args),
        Command::Forward(args) => forward::run(&args, start(&args.compute)?),
        Command::Selftest(args) => selftest::run(&args, start(&args.compute)?),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => about::completions(&args),
        Command::Man(args) => about::man(&args),
    }
}

/// Starts the threads that a verb computes with; returns its device.
fn start(args: &ComputeArgs) -> Result<DeviceChoice> {
    start_threads(&args.threads)?;
    Ok(args.device)
}

fn start_threads(args: &ThreadsArgs) -> Result<()> {
    let Some(threads) = args.threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .with_context(|| format!("cannot start {}", counted(threads, "thread")))
}

/// Refuses budgets that the selection rule cannot serve, before any work is done.
fn check_budgets(budgets: &[SparseBudget], rule: SelectionRule) -> Result<()> {
    let refused = |budget: &&SparseBudget| budget.block_counts() > budget.block_size();
    match budgets.iter().find(refused).filter(|_| rule == SelectionRule::Reference) {
        None => Ok(()),
        Some(budget) => Err(UsageError(format!(
            "the budget {budget} does not exist with reference selection, which takes at most as \
             many blocks as a block has tokens ({})\n\
             hint: lower the number of blocks, or use exact selection",
            budget.block_size()
        ))
        .into()),
    }
}
