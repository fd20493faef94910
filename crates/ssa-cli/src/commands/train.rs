//! `ssa train`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use jiff::Timestamp;
use ssa_data::{Split, unigram_bits_per_byte};
use ssa_eval::report::table::results_table;
use ssa_eval::report::{self, StepPoint};
use ssa_eval::{Analysis, EvalBatch, Machine, Perplexity, PerplexityOptions, Summary};
use ssa_model::{AttentionMode, Method, Model};
use ssa_train::{Existing, RunDir, StepMetrics, TrainConfig, TrainError, TrainPlan, Trainer};

use crate::args::TrainArgs;
use crate::display::{BatchProgress, TrainProgress, note, print, render};
use crate::exit::UsageError;
use crate::files::write_whole;

/// Where runs go that are not named.
const RUNS: &str = "runs";

pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    let started = Timestamp::now();
    let plan = plan(args)?;
    let text = plan.text()?;
    // Everything that can be wrong with the text is found before the run directory exists.
    let rows = plan.training_rows(&text.train)?;
    let held_out =
        EvalBatch::pack(&text.held_out, plan.sequence_length(), plan.config().evaluation.batch_size)?;
    let model = plan.initial_model()?;
    let run_dir = create_run_dir(args, &plan)?;
    run_dir.write_config(plan.config())?;
    describe(&plan, &model, &text, rows.rows().len(), &run_dir);

    let mut trainer = Trainer::new(plan.clone(), model, rows)?;
    let training = train(&mut trainer, &run_dir)?;
    let model = trainer.into_model();
    let evaluation = if args.no_eval { None } else { Some(evaluate(&plan, &model, &text, &held_out)?) };
    let summary = summarise(&plan, &model, started, &training, evaluation)?;
    finish(&summary, &training.steps, &plan, &run_dir)
}

fn plan(args: &TrainArgs) -> Result<TrainPlan> {
    let mut config = TrainConfig::load(&args.config, &args.overrides)?;
    if !args.data.is_empty() {
        config.data.paths.clone_from(&args.data);
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
fn describe(plan: &TrainPlan, model: &Model, text: &Split, rows: usize, run_dir: &RunDir) {
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
    note(&format!(
        "text: {rows} rows of {} tokens to train on, {} bytes held out",
        plan.sequence_length(),
        ssa_data::text_bytes(&text.held_out)
    ));
    note(&format!(
        "{} steps of {} rows on {} threads; run directory {}",
        plan.steps(),
        plan.batch_size(),
        rayon::current_num_threads(),
        run_dir.path().display()
    ));
}

/// What training leaves behind besides the model.
struct Training {
    steps: Vec<StepPoint>,
    tokens: u64,
    seconds: f64,
}

/// Runs all steps and saves the checkpoint, also that of a run that diverged: its weights are the last good ones.
fn train(trainer: &mut Trainer, run_dir: &RunDir) -> Result<Training> {
    let plan = trainer.plan().clone();
    let method = plan.config().objective.method;
    let mut metrics_file = run_dir.metrics()?;
    let mut training = Training { steps: Vec::with_capacity(plan.steps()), tokens: 0, seconds: 0.0 };
    let mut progress = TrainProgress::new(plan.steps(), plan.config().training.log_every, method);
    let start = Instant::now();
    let mut steps = || -> Result<(), TrainError> {
        for metrics in &mut *trainer {
            let metrics = metrics?;
            metrics_file.write(&metrics)?;
            progress.step(&metrics);
            training.tokens += metrics.tokens as u64;
            training.steps.push(step_point(&metrics, method));
        }
        Ok(())
    };
    let result = steps();
    progress.finish();
    training.seconds = start.elapsed().as_secs_f64();
    if matches!(result, Ok(()) | Err(TrainError::NotFinite { .. })) {
        run_dir.save(trainer.model())?;
    }
    result?;
    Ok(training)
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
    baseline_bits_per_byte: f64,
    perplexity: Perplexity,
    analysis: Analysis,
}

fn evaluate(plan: &TrainPlan, model: &Model, text: &Split, batches: &[EvalBatch]) -> Result<Evaluation> {
    let rule = plan.objective().attention.selection.rule;
    let analysed = EvalBatch::covering(batches, plan.config().evaluation.analysis_tokens);

    let options =
        PerplexityOptions { budgets: plan.budgets().to_vec(), rule, sparsity_batches: analysed.len() };
    let progress = BatchProgress::new("evaluating", batches.len());
    let perplexity = ssa_eval::perplexity(model, batches, &options, &mut |done| progress.done(done));
    progress.finish();

    let progress = BatchProgress::new("analysing", analysed.len());
    let trained = model.config().trained_budget();
    let analysis = ssa_eval::analyze(model, analysed, trained, rule, &mut |done| progress.done(done));
    progress.finish();
    Ok(Evaluation {
        baseline_bits_per_byte: unigram_bits_per_byte(&text.train, &text.held_out),
        perplexity: perplexity?,
        analysis: analysis?,
    })
}

fn summarise(
    plan: &TrainPlan,
    model: &Model,
    started: Timestamp,
    training: &Training,
    evaluation: Option<Evaluation>,
) -> Result<Summary> {
    let (baseline_bits_per_byte, perplexity, analysis) = match evaluation {
        Some(found) => (Some(found.baseline_bits_per_byte), Some(found.perplexity), Some(found.analysis)),
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
