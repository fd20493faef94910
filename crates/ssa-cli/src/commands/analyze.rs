//! `ssa analyze`.

use anyhow::Result;
use serde::Serialize;
use ssa_eval::report::table::{analysis_caption, layers_table};
use ssa_eval::{Analysis, EvalBatch};
use ssa_model::Method;

use super::check_budgets;
use super::held_out::HeldOut;
use crate::args::{AnalyzeArgs, DeviceChoice};
use crate::display::{BatchProgress, Display, print, print_json, render};

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'a> {
    model: String,
    method: Method,
    data: &'a str,
    #[serde(flatten)]
    analysis: &'a Analysis,
}

pub(crate) fn run(args: &AnalyzeArgs, device: DeviceChoice) -> Result<()> {
    let rule = args.held_out.selection.into();
    let held_out = HeldOut::load(&args.held_out, device)?;
    let budget = args.budget.unwrap_or_else(|| held_out.model.config().trained_budget());
    check_budgets(&[budget], rule)?;
    let batches = EvalBatch::covering(&held_out.batches, args.tokens);
    let mut progress = BatchProgress::new(Display::choose(false), "analyzing", batches.len());
    let result =
        ssa_eval::analyze(&held_out.model, batches, budget, rule, &mut |done| progress.done(done));
    progress.finish();
    let analysis = result?;

    if args.held_out.json {
        return print_json(&Output {
            model: args.held_out.model.display().to_string(),
            method: held_out.model.config().attention_method,
            data: &held_out.source,
            analysis: &analysis,
        });
    }
    for states in &analysis.hidden_states {
        print(&format!("Under the hidden states of {} inference", states.mode))?;
        print(&render(&layers_table(states)))?;
        print("")?;
    }
    print(&analysis_caption(&analysis))
}
