//! `ssa analyze`.

use anyhow::Result;
use serde::Serialize;
use ssa_eval::report::table::{analysis_caption, layers_table};
use ssa_eval::{Analysis, EvalBatch};
use ssa_model::Method;

use super::held_out::Subject;
use super::{check_budgets, command_line};
use crate::args::{AnalyzeArgs, DeviceChoice};
use crate::display::{BatchProgress, Display, print, print_json, render};

/// The output of `--json`.
#[derive(Serialize)]
struct Output<'a> {
    model: String,
    method: Method,
    data: &'a str,
    device: String,
    command: String,
    #[serde(flatten)]
    analysis: &'a Analysis,
}

pub(crate) fn run(args: &AnalyzeArgs, device: DeviceChoice) -> Result<()> {
    let rule = args.held_out.selection;
    check_budgets(args.budget.as_slice(), rule)?;
    let subject = Subject::load(&args.held_out, device)?;
    let budget = args.budget.unwrap_or_else(|| subject.model.config().budget);
    check_budgets(&[budget], rule)?;
    let batches = EvalBatch::covering(&subject.batches, args.tokens);
    let mut progress = BatchProgress::new(Display::choose(false), "analyzing", batches.len());
    let result =
        ssa_eval::analyze(&subject.model, batches, budget, rule, &mut |done| progress.done(done));
    progress.finish();
    let analysis = result?;

    if args.held_out.json {
        return print_json(&Output {
            model: args.held_out.model.display().to_string(),
            method: subject.model.config().attention_method,
            data: &subject.source,
            device: subject.model.device().to_string(),
            command: command_line(),
            analysis: &analysis,
        });
    }
    for attention in &analysis.hidden_states {
        print(&format!("With the hidden states of {} inference", attention.mode))?;
        print(&render(&layers_table(attention)))?;
        print("")?;
    }
    print(&subject.caption())?;
    print(&analysis_caption(&analysis))
}
