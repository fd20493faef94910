//! The end of a run: the evaluation, the summary and the report.

use anyhow::{Context, Result};
use ssa_data::Dataset;
use ssa_eval::report;
use ssa_eval::report::StepPoint;
use ssa_eval::report::table::results_table;
use ssa_eval::{Analysis, EvalBatch, Machine, Perplexity, PerplexityOptions, Summary};
use ssa_model::{AttentionMode, Model};
use ssa_train::{RunDir, TrainPlan};

use super::describe::device_name;
use super::history::StepHistory;
use crate::commands::command_line;
use crate::display::{BatchProgress, Display, print, render};
use crate::files::write_whole;

/// The measurements of the model on the held-out text.
pub(super) struct Evaluation {
    perplexity: Perplexity,
    analysis: Analysis,
}

/// Measures the model at every budget, and attention at the training budget.
pub(super) fn evaluate(
    plan: &TrainPlan,
    model: &Model,
    batches: &[EvalBatch],
    display: Display,
) -> Result<Evaluation> {
    let rule = plan.objective().attention.selection.rule;
    let analyzed = EvalBatch::covering(batches, plan.config().evaluation.analysis_tokens);

    let options = PerplexityOptions {
        budgets: plan.budgets().to_vec(),
        rule,
        sparsity_batches: analyzed.len(),
    };
    let mut progress = BatchProgress::new(display, "evaluating", batches.len());
    let perplexity =
        ssa_eval::perplexity(model, batches, &options, &mut |done| progress.done(done));
    progress.finish();

    let mut progress = BatchProgress::new(display, "analyzing", analyzed.len());
    let budget = model.config().budget;
    let analysis =
        ssa_eval::analyze(model, analyzed, budget, rule, &mut |done| progress.done(done));
    progress.finish();
    Ok(Evaluation { perplexity: perplexity?, analysis: analysis? })
}

/// Collects the summary of the run.
pub(super) fn summarize(
    plan: &TrainPlan,
    model: &Model,
    run_dir: &RunDir,
    data: &Dataset,
    history: &StepHistory,
    evaluation: Option<Evaluation>,
) -> Result<Summary> {
    let baseline = evaluation.as_ref().and(data.held_out.baseline_bits_per_byte);
    let (perplexity, analysis) = evaluation.map(|found| (found.perplexity, found.analysis)).unzip();
    // Of the process that started the run, if it was resumed.
    let started = run_dir.journal()?.first().map(|entry| entry.time.clone()).unwrap_or_default();
    let (tokens, seconds) = history.cost();
    let config = model.config();
    Ok(Summary {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("SSA_COMMIT").to_owned(),
        run: plan.config().run.name.clone(),
        command: command_line(),
        started,
        machine: Machine::current(rayon::current_num_threads()),
        device: device_name(&model.device()),
        seed: plan.seed(),
        data: data.names.clone(),
        held_out: data.held_out.parts.iter().map(|part| part.name.clone()).collect(),
        method: config.attention_method,
        trained_budget: config
            .attention_method
            .trains_on(AttentionMode::Sparse)
            .then_some(config.budget),
        parameters: model.parameters().count(),
        steps: history.points().len() as u64,
        train_tokens: tokens,
        train_seconds: seconds,
        tokens_per_second: tokens as f64 / seconds,
        baseline_bits_per_byte: baseline,
        evaluation: perplexity,
        analysis,
        config: toml::from_str(&plan.config().to_toml())
            .context("the resolved configuration is not TOML")?,
    })
}

/// Writes the report and the summary, and prints the table. The summary comes last: it marks the
/// run as finished.
pub(super) fn write(
    summary: &Summary,
    points: &[StepPoint],
    plan: &TrainPlan,
    run_dir: &RunDir,
) -> Result<()> {
    let page = report::render(summary, points, &plan.config().to_toml())?;
    run_dir.check_lock()?;
    let path = run_dir.path().join("report.html");
    write_whole(&path, page.as_bytes())?;
    summary.write(&RunDir::summary_of(run_dir.path()))?;
    if let Some(evaluation) = &summary.evaluation {
        let table =
            results_table(evaluation, summary.baseline_bits_per_byte, summary.trained_budget);
        print(&render(&table))?;
        print(&report::caption(summary))?;
    }
    print(&format!("report: {}", path.display()))
}
