//! `ssa eval`.

mod attentions;
mod context_length;
mod journal;
mod perplexity;
mod provenance;
mod tasks;

use anyhow::Result;

use super::start;
use crate::args::{EvalArgs, EvalCommand};
use crate::exit::UsageError;

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    match (&args.command, &args.tasks.model) {
        (Some(EvalCommand::Perplexity(args)), _) => {
            perplexity::run(args, start(&args.held_out.compute)?)
        }
        (Some(EvalCommand::ContextLength(args)), _) => {
            context_length::run(args, start(&args.compute)?)
        }
        (None, Some(model)) => tasks::run(&args.tasks, model, start(&args.tasks.compute)?),
        // Only a verb below `eval` goes without a model of its own.
        (None, None) => Err(UsageError("--model: missing".to_owned()).into()),
    }
}
