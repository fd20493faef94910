//! `ssa analyze`.

use anyhow::Result;
use serde::Serialize;
use ssa_eval::EvalBatch;
use ssa_eval::report::table::{analysis_caption, layers_table, mass_layers_table};
use ssa_infer::Budget;
use ssa_model::Method;
use ssa_ranks::Ranks;

use super::held_out::Subject;
use super::{check_budget, check_budgets, command_line};
use crate::args::{AnalyzeArgs, DeviceChoice};
use crate::display::{BatchProgress, Display, print, print_json, render};

/// The output of `--json`.
#[derive(Serialize)]
struct Output<'a, A> {
    model: String,
    method: Method,
    data: &'a str,
    device: String,
    command: String,
    #[serde(flatten)]
    analysis: &'a A,
}

pub(crate) fn run(args: &AnalyzeArgs, device: DeviceChoice) -> Result<()> {
    let rule = args.held_out.selection;
    args.budget.map_or(Ok(()), |budget| check_budget(budget, rule))?;
    let subject = Subject::load(&args.held_out, device)?;
    let budget = match args.budget {
        None => subject.model.config().budget,
        Some(Budget::Blocks(budget)) => budget,
        Some(budget) => return by_mass(args, &subject, budget),
    };
    check_budgets(&[budget], rule)?;
    let batches = EvalBatch::covering(&subject.batches, args.tokens);
    let mut progress = BatchProgress::new(Display::choose(false), "analyzing", batches.len());
    let result = ssa_eval::analyze(
        &subject.model,
        batches,
        budget,
        rule,
        &mut Ranks::alone(),
        &mut |done| progress.done(done),
    );
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

/// What a budget by attention mass reads in each layer.
fn by_mass(args: &AnalyzeArgs, subject: &Subject, budget: Budget) -> Result<()> {
    let batches = EvalBatch::covering(&subject.batches, args.tokens);
    let mut progress = BatchProgress::new(Display::choose(false), "analyzing", batches.len());
    let results =
        ssa_eval::evaluate_mass_budgets(&subject.model, batches, &[budget], &mut |done| {
            progress.done(done);
        });
    progress.finish();
    for result in &results? {
        if args.held_out.json {
            return print_json(&Output {
                model: args.held_out.model.display().to_string(),
                method: subject.model.config().attention_method,
                data: &subject.source,
                device: subject.model.device().to_string(),
                command: command_line(),
                analysis: result,
            });
        }
        print(&render(&mass_layers_table(result)))?;
        print(&subject.caption())?;
        let kl = result
            .kl_full_sparse
            .map_or_else(String::new, |kl| format!(", KL(full || sparse) {kl:.4} nats"));
        print(&format!("budget {budget}{kl}"))?;
    }
    Ok(())
}
