//! The implementation of the verbs: one file per verb.

mod about;
mod analyze;
mod bench;
mod chat;
mod compare;
mod convert;
mod data;
mod device;
mod doctor;
mod eval;
mod export;
mod forward;
mod free_memory;
mod generate;
mod generation;
mod held_out;
mod memory;
mod model;
mod nccl;
mod selftest;
mod train;

use std::env;
use std::ffi::OsString;

use anyhow::Result;
use ssa_data::DataError;
use ssa_infer::Budget;
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{AttentionMode, Method, SparseBudget};

use crate::args::{Cli, Command, ComputeArgs, DeviceChoice, ThreadsArgs};
use crate::exit::UsageError;

/// Runs the command line.
pub(crate) fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Compare(args) => compare::run(&args, start(&args.compute)?),
        Command::Eval(args) => eval::run(&args),
        Command::Analyze(args) => analyze::run(&args, start(&args.held_out.compute)?),
        Command::Generate(args) => generate::run(&args, start(&args.generation.compute)?),
        Command::Chat(args) => chat::run(&args, start(&args.generation.compute)?),
        Command::Data(args) => data::run(&args.command),
        Command::Convert(args) => convert::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Config(args) => about::config(&args),
        Command::Forward(args) => forward::run(&args, start(&args.compute)?),
        Command::Selftest(args) => selftest::run(&args, start(&args.compute)?),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => about::completions(&args),
        Command::Man(args) => about::man(&args),
    }
}

/// Starts the compute threads of a verb; returns its device.
fn start(args: &ComputeArgs) -> Result<DeviceChoice> {
    start_threads(&args.threads)?;
    Ok(args.device)
}

fn start_threads(args: &ThreadsArgs) -> Result<()> {
    // Zero: as many as there are cores.
    let threads = args.threads.unwrap_or(0);
    let started = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    Ok(started.map_err(|error| DataError::Thread { cause: error.to_string() })?)
}

/// Checks that the selection rule supports the budgets, before any work.
fn check_budgets(budgets: &[SparseBudget], rule: SelectionRule) -> Result<()> {
    let refused = budgets.iter().find_map(|budget| Some((budget, budget.refused_by(rule)?)));
    let Some((budget, (part, expected))) = refused else { return Ok(()) };
    Err(UsageError(format!(
        "the budget {budget} is not supported by reference selection: {part} must be {expected}\n\
         hint: change the budget, or use exact selection"
    ))
    .into())
}

/// Refuses a budget that the selection rule cannot serve.
fn check_budget(budget: Budget, rule: SelectionRule) -> Result<()> {
    match budget {
        Budget::Blocks(budget) => check_budgets(&[budget], rule),
        Budget::Mass { .. } if rule == SelectionRule::Exact => Ok(()),
        Budget::Mass { .. } => Err(UsageError(format!(
            "the budget {budget} is impossible with {rule} selection, whose number of blocks is \
             fixed\nhint: use exact selection"
        ))
        .into()),
    }
}

/// Refuses a mode that a method does not have.
fn require_mode(method: Method, mode: AttentionMode) -> Result<()> {
    if method.has_mode(mode) {
        return Ok(());
    }
    Err(UsageError(format!(
        "method {method} has no {mode} attention\nhint: pass --attention {}",
        method.main_mode()
    ))
    .into())
}

/// The command line of this program, quoted for a shell.
fn command_line() -> String {
    let quoted = |argument: OsString| {
        let text = argument.to_string_lossy().into_owned();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
        match text.bytes().all(plain) && !text.is_empty() {
            true => text,
            false => format!("'{}'", text.replace('\'', "'\\''")),
        }
    };
    let arguments = env::args_os().skip(1).map(quoted);
    ["ssa".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}
