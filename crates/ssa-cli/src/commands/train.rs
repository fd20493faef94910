//! `ssa train`.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use ssa_eval::report::table::results_table;
use ssa_eval::report::{self, StepPoint};
use ssa_eval::{Analysis, EvalBatch, Machine, Perplexity, PerplexityOptions, Summary};
use ssa_model::{AttentionMode, Method, Model};
use ssa_train::{
    BatchRamp, Existing, Measurements, RunData, RunDir, RunLog, StepMetrics, TrainConfig, TrainError,
    TrainPlan, Trainer,
};

use super::held_out::held_out_batches;
use super::monitor::Monitor;
use crate::args::TrainArgs;
use crate::display::{BatchProgress, Display, TrainProgress, note, print, render};
use crate::exit::UsageError;
use crate::files::write_whole;

/// Where runs go that are not named.
const RUNS: &str = "runs";

pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    let started = Timestamp::now();
    let plan = plan(args)?;
    // Everything that can be wrong with the text is found before the run directory exists.
    let data = plan.open_data()?;
    let held_out = held_out_batches(&data.held_out, plan.config().evaluation.batch_size)?;
    let model = plan.initial_model()?;
    let run_dir = create_run_dir(args, &plan)?;
    run_dir.write_config(plan.config())?;
    describe(&plan, &model, &data, &run_dir);

    let mut trainer = Trainer::new(plan.clone(), model, data.train)?;
    let display = Display::choose(args.plain);
    let monitor = Monitor::new(&plan, &run_dir, &held_out)?;
    let training = train(&mut trainer, &run_dir, monitor, display)?;
    let model = trainer.into_model();
    let baseline = data.held_out.baseline_bits_per_byte;
    let evaluation =
        if args.no_eval { None } else { Some(evaluate(&plan, &model, baseline, &held_out, display)?) };
    let summary = summarise(&plan, &model, started, &training, evaluation)?;
    finish(&summary, &training.steps, &plan, &run_dir)
}

fn plan(args: &TrainArgs) -> Result<TrainPlan> {
    let mut config = TrainConfig::load(&args.config, &args.overrides)?;
    if !args.data.is_empty() {
        config.data.paths.clone_from(&args.data);
        config.data.corpora.clear();
    }
    let plan = TrainPlan::new(config)?;
    if plan.config().objective.method == Method::Nsa && plan.budgets().is_empty() && !args.no_eval {
        return Err(UsageError(
            "method nsa has no full attention, so there is nothing to evaluate without a budget; add one to \
             evaluation.budgets, or pass --no-eval"
                .to_owned(),
        )
        .into());
    }
    Ok(plan)
}

fn create_run_dir(args: &TrainArgs, plan: &TrainPlan) -> Result<RunDir> {
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    Ok(match &args.run_dir {
        Some(path) => RunDir::create_named(path, existing)?,
        None => RunDir::create(Path::new(RUNS), &plan.config().run.name)?,
    })
}

/// Says what is about to happen.
fn describe(plan: &TrainPlan, model: &Model, data: &RunData, run_dir: &RunDir) {
    let config = model.config();
    note(&format!(
        "{}: {} parameters, {} layers, {} query heads on {}, blocks {}x{}",
        config.attention_method,
        model.parameters().count(),
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.block_size,
        config.block_counts,
    ));
    describe_data(data);
    note(&format!(
        "{} steps of {} rows on {} threads; run directory {}",
        plan.steps(),
        rows_of_steps(plan.batches()),
        rayon::current_num_threads(),
        run_dir.path().display()
    ));
}

fn rows_of_steps(batches: &BatchRamp) -> String {
    match batches.rows(0) {
        rows if rows == batches.full => rows.to_string(),
        rows => format!("{rows}, growing to {}", batches.full),
    }
}

/// One line for each corpus, one for what is held out.
fn describe_data(data: &RunData) {
    let shares = data.train.shares();
    for ((rows, name), share) in data.train.corpora().zip(&data.names).zip(shares) {
        let mixed = if data.names.len() > 1 {
            format!("{:.1} % of the rows, ", 100.0 * share)
        } else {
            String::new()
        };
        note(&format!(
            "{name}: {mixed}{} rows of {} tokens ({}, {:.1} % used)",
            rows.len(),
            rows.sequence_length(),
            rows.packing(),
            100.0 * rows.utilisation(),
        ));
    }
    for part in &data.held_out.parts {
        note(&format!("{}: {} tokens to evaluate on", part.name, part.rows.valid_tokens()));
    }
}

/// What training leaves behind besides the model.
struct Training {
    steps: Vec<StepPoint>,
    tokens: u64,
    seconds: f64,
}

/// Runs all steps and saves the checkpoint, also that of a run that diverged: its weights are the last good ones.
fn train(
    trainer: &mut Trainer,
    run_dir: &RunDir,
    mut monitor: Monitor<'_>,
    display: Display,
) -> Result<Training> {
    let plan = trainer.plan().clone();
    let method = plan.config().objective.method;
    let mut log = log(&plan, run_dir, trainer.done())?;
    let mut training = Training { steps: Vec::with_capacity(plan.steps()), tokens: 0, seconds: 0.0 };
    let mut progress = TrainProgress::new(&plan, display);
    let mut steps = || -> Result<()> {
        while let Some(metrics) = trainer.next() {
            let metrics = metrics?;
            let measured = monitor.after(trainer.model(), metrics.step);
            // The step is logged also if what came after it failed.
            log.write(&metrics, measured.as_ref().unwrap_or(&Measurements::default()))?;
            progress.step(&metrics, &measured?);
            training.tokens += metrics.tokens as u64;
            training.seconds += metrics.seconds;
            training.steps.push(step_point(&metrics, method));
        }
        Ok(())
    };
    let result = steps();
    progress.finish();
    let diverged = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(TrainError::NotFinite { .. }));
    if result.as_ref().err().is_none_or(diverged) {
        run_dir.save(trainer.model(), plan.tokenizer())?;
    }
    result?;
    Ok(training)
}

/// The log of a run of which so many steps are done.
fn log(plan: &TrainPlan, run_dir: &RunDir, done: usize) -> Result<RunLog> {
    let events = if plan.config().monitoring.tensorboard { Some(run_dir.events(done + 1)?) } else { None };
    Ok(RunLog::new(run_dir.metrics()?, events))
}

fn step_point(metrics: &StepMetrics, method: Method) -> StepPoint {
    let stream = match metrics.full_streams {
        1.0 => Some(AttentionMode::Full),
        0.0 => Some(AttentionMode::Sparse),
        _ => None,
    };
    StepPoint {
        step: metrics.step as u64,
        stream,
        cross_entropy: metrics.cross_entropy,
        alignment_loss: (method == Method::Ssa).then_some(metrics.alignment),
    }
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

    let options =
        PerplexityOptions { budgets: plan.budgets().to_vec(), rule, sparsity_batches: analysed.len() };
    let progress = BatchProgress::new(display, "evaluating", batches.len());
    let perplexity = ssa_eval::perplexity(model, batches, &options, &mut |done| progress.done(done));
    progress.finish();

    let progress = BatchProgress::new(display, "analysing", analysed.len());
    let trained = model.config().trained_budget();
    let analysis = ssa_eval::analyze(model, analysed, trained, rule, &mut |done| progress.done(done));
    progress.finish();
    Ok(Evaluation { baseline_bits_per_byte, perplexity: perplexity?, analysis: analysis? })
}

fn summarise(
    plan: &TrainPlan,
    model: &Model,
    started: Timestamp,
    training: &Training,
    evaluation: Option<Evaluation>,
) -> Result<Summary> {
    let (baseline_bits_per_byte, perplexity, analysis) = match evaluation {
        Some(found) => (found.baseline_bits_per_byte, Some(found.perplexity), Some(found.analysis)),
        None => (None, None, None),
    };
    Ok(Summary {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("SSA_COMMIT").to_owned(),
        started: started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        machine: Machine::current(rayon::current_num_threads()),
        method: model.config().attention_method,
        trained_budget: model.config().trained_budget(),
        parameters: model.parameters().count(),
        steps: training.steps.len() as u64,
        train_tokens: training.tokens,
        train_seconds: training.seconds,
        tokens_per_second: training.tokens as f64 / training.seconds,
        baseline_bits_per_byte,
        evaluation: perplexity,
        analysis,
        config: toml::from_str(&plan.config().to_toml()).context("the resolved configuration is not TOML")?,
    })
}

/// Writes the summary and the report, and shows the table.
fn finish(summary: &Summary, steps: &[StepPoint], plan: &TrainPlan, run_dir: &RunDir) -> Result<()> {
    summary.write(&run_dir.path().join("summary.json"))?;
    let page = report::render(summary, steps, &plan.config().to_toml())?;
    let path = run_dir.path().join("report.html");
    write_whole(&path, page.as_bytes())?;
    if let Some(evaluation) = &summary.evaluation {
        let table = results_table(evaluation, summary.baseline_bits_per_byte, Some(summary.trained_budget));
        print(&render(&table))?;
    }
    print(&format!("report: {}", path.display()))
}
