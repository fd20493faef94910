//! `ssa eval`.

mod perplexity;
mod tasks;

use anyhow::Result;

use super::start;
use crate::args::{EvalArgs, EvalCommand};
use crate::exit::UsageError;

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    match (&args.command, &args.tasks) {
        (Some(EvalCommand::Perplexity(args)), _) => {
            perplexity::run(args, start(&args.held_out.compute)?)
        }
        (None, Some(args)) => tasks::run(args, start(&args.compute)?),
        (None, None) => {
            let message = "ssa eval: no task\nhint: name tasks, or see `ssa eval --help`";
            Err(UsageError(message.to_owned()).into())
        }
    }
}
