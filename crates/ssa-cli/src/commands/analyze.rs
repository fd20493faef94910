//! `ssa analyze`.

use anyhow::Result;
use serde::Serialize;
use ssa_eval::report::table::{
    analysis_caption, context_table, distance_table, heads_table, layers_table, mass_layers_table,
    oracle_caption,
};
use ssa_eval::{AttentionProfile, EvalBatch};
use ssa_infer::Budget;
use ssa_model::Method;
use ssa_ranks::Ranks;

use super::held_out::Subject;
use super::{check_budget, check_budgets, command_line};
use crate::args::{AnalyzeArgs, DeviceChoice};
use crate::display::{BatchProgress, Display, print, print_json, render};
use crate::exit::UsageError;

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
        Some(budget) if args.detail => {
            let message = format!(
                "--detail needs a number of blocks, but the budget is {budget}\nhint: pass a \
                 budget such as 16x4"
            );
            return Err(UsageError(message).into());
        }
        Some(budget) => return by_mass(args, &subject, budget),
    };
    check_budgets(&[budget], rule)?;
    let batches = EvalBatch::covering(&subject.batches, args.tokens);
    let mut progress = BatchProgress::new(Display::choose(false), "analyzing", batches.len());
    let mut done = |done| progress.done(done);
    let model = &subject.model;
    let result = if args.detail {
        ssa_eval::analyze_in_detail(model, batches, budget, rule, &mut done)
    } else {
        ssa_eval::analyze(model, batches, budget, rule, &mut Ranks::alone(), &mut done)
    };
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
    analysis.profiles.iter().try_for_each(print_profile)?;
    print(&subject.caption())?;
    print(&analysis_caption(&analysis))
}

/// The tables of `--detail`.
fn print_profile(profile: &AttentionProfile) -> Result<()> {
    for (title, table) in [
        ("by head", heads_table(profile)),
        ("by context length in tokens", context_table(profile)),
        ("by distance in blocks", distance_table(profile)),
    ] {
        print(&format!("With the hidden states of {} inference, {title}", profile.mode))?;
        print(&render(&table))?;
        print("")?;
    }
    print(&oracle_caption(profile))?;
    print("")
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
