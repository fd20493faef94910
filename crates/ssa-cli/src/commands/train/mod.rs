//! `ssa train`.

mod begin;
mod describe;
mod memory;
mod steps;

use anyhow::{Context, Result};
use ssa_eval::report::table::results_table;
use ssa_eval::report::{self, StepPoint};
use ssa_eval::{Analysis, EvalBatch, Machine, Perplexity, PerplexityOptions, Summary};
use ssa_model::Model;
use ssa_train::{RunDir, Session, TrainPlan};

use super::device;
use super::held_out::held_out_batches;
use super::monitor::Monitor;
use crate::args::{DeviceChoice, TrainArgs};
use crate::display::{BatchProgress, Display, TrainProgress, note, print, render};
use crate::exit::Interrupted;
use crate::files::write_whole;
use crate::signals::Signals;
use begin::Beginning;
use describe::describe;
use steps::{Training, run_steps};

pub(crate) fn run(args: &TrainArgs, choice: DeviceChoice) -> Result<()> {
    let plan = begin::plan(args)?;
    if args.dry_run {
        return memory::dry_run(&plan, choice);
    }
    let device = device::open(choice)?;
    memory::reserve(&plan, &device)?;
    let Some(beginning) = Beginning::find(args, plan.clone())? else {
        note("this run is finished: there is nothing left to do");
        return Ok(());
    };
    // Everything that can be wrong with the text is found before the run directory exists.
    let data = plan.open_data()?;
    let held_out = held_out_batches(&data.held_out, plan.config().evaluation.batch_size)?;
    let trainer = beginning.trainer(&data)?.to_device(&device)?;
    let run_dir = beginning.into_run_dir(args)?;
    describe(&trainer, &data, &run_dir);

    let display = Display::choose(args.plain);
    let signals = Signals::catch()?;
    let mut session = Session::new(&run_dir, trainer)?;
    session.stop_on(signals.flag());
    session.set_held_out(data.held_out.parts.iter().map(|part| &part.rows))?;
    let history = session.take_history();
    let monitor = Monitor::new(&plan, &run_dir, &held_out, &history)?;
    let mut training = Training::new(&plan, &history);
    let progress = TrainProgress::new(&plan, display, &history);
    let model = run_steps(session, monitor, &mut training, &signals, progress)?.into_model();
    if signals.requested() && !args.no_eval {
        return Err(Interrupted::after(plan.steps(), &plan, &run_dir).into());
    }
    // All that training has done is on disk, so there is nothing to wait for any more.
    signals.end_at_once();

    let baseline = data.held_out.baseline_bits_per_byte;
    let evaluation = if args.no_eval {
        None
    } else {
        Some(evaluate(&plan, &model, baseline, &held_out, display)?)
    };
    let summary = summarise(&plan, &model, &run_dir, &training, evaluation)?;
    finish(&summary, training.steps(), &plan, &run_dir)
}

/// What the held-out text tells about the model.
struct Evaluation {
    baseline_bits_per_byte: Option<f64>,
    perplexity: Perplexity,
    analysis: Analysis,
}

fn evaluate(
    plan: &TrainPlan,
    model: &Model,
    baseline_bits_per_byte: Option<f64>,
    batches: &[EvalBatch],
    display: Display,
) -> Result<Evaluation> {
    let rule = plan.objective().attention.selection.rule;
    let analysed = EvalBatch::covering(batches, plan.config().evaluation.analysis_tokens);

    let options = PerplexityOptions {
        budgets: plan.budgets().to_vec(),
        rule,
        sparsity_batches: analysed.len(),
    };
    let mut progress = BatchProgress::new(display, "evaluating", batches.len());
    let perplexity =
        ssa_eval::perplexity(model, batches, &options, &mut |done| progress.done(done));
    progress.finish();

    let mut progress = BatchProgress::new(display, "analyzing", analysed.len());
    let trained = model.config().trained_budget();
    let analysis =
        ssa_eval::analyze(model, analysed, trained, rule, &mut |done| progress.done(done));
    progress.finish();
    Ok(Evaluation { baseline_bits_per_byte, perplexity: perplexity?, analysis: analysis? })
}

fn summarise(
    plan: &TrainPlan,
    model: &Model,
    run_dir: &RunDir,
    training: &Training,
    evaluation: Option<Evaluation>,
) -> Result<Summary> {
    let (baseline_bits_per_byte, perplexity, analysis) = match evaluation {
        Some(found) => (found.baseline_bits_per_byte, Some(found.perplexity), Some(found.analysis)),
        None => (None, None, None),
    };
    // Of the program that began the run, if it was continued.
    let started = run_dir.journal()?.first().map(|entry| entry.time.clone()).unwrap_or_default();
    let (tokens, seconds) = training.cost();
    Ok(Summary {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("SSA_COMMIT").to_owned(),
        started,
        machine: Machine::current(rayon::current_num_threads()),
        method: model.config().attention_method,
        trained_budget: model.config().trained_budget(),
        parameters: model.parameters().count(),
        steps: training.steps().len() as u64,
        train_tokens: tokens,
        train_seconds: seconds,
        tokens_per_second: tokens as f64 / seconds,
        baseline_bits_per_byte,
        evaluation: perplexity,
        analysis,
        config: toml::from_str(&plan.config().to_toml())
            .context("the resolved configuration is not TOML")?,
    })
}

/// Writes the report and the summary, and shows the table. The summary comes last: with it the run
/// is finished.
fn finish(
    summary: &Summary,
    steps: &[StepPoint],
    plan: &TrainPlan,
    run_dir: &RunDir,
) -> Result<()> {
    let page = report::render(summary, steps, &plan.config().to_toml())?;
    run_dir.check_lock()?;
    let path = run_dir.path().join("report.html");
    write_whole(&path, page.as_bytes())?;
    summary.write(&run_dir.path().join("summary.json"))?;
    if let Some(evaluation) = &summary.evaluation {
        let table =
            results_table(evaluation, summary.baseline_bits_per_byte, Some(summary.trained_budget));
        print(&render(&table))?;
    }
    print(&format!("report: {}", path.display()))
}
