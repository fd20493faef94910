//! What each verb does: one file per verb.

mod analyze;
mod bench;
mod data;
mod device;
mod doctor;
mod eval;
mod forward;
mod free_memory;
mod held_out;
mod memory;
mod model;
mod selftest;
mod train;

use std::env;
use std::ffi::OsString;

use anyhow::{Context, Result};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::SparseBudget;

use crate::args::{Cli, Command, EvalCommand};

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
    Ok(budgets.iter().try_for_each(|budget| budget.check(rule))?)
}

/// The command line of this program, as a shell would read it.
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
