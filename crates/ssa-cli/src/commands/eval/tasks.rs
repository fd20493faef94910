//! `ssa eval TASK...`: benchmark tasks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};
use ssa_data::Tokenizer;
use ssa_eval::EvalError;
use ssa_eval::harness::{
    Answer, Evaluator, GenerationSettings, GridSettings, InferenceMode, Journal, PrepareSettings,
    PreparedTask, Task, TaskResult, cells_tables, results_table,
};
use ssa_eval::sliding::{RopeMethod, RopeSettings};
use ssa_infer::InferenceModel;
use ssa_report::number::{counted, grouped};

use super::provenance::Provenance;
use super::{attentions, journal};
use crate::args::{DeviceChoice, TasksArgs};
use crate::commands::generation::defaults;
use crate::commands::model::{self, LoadedModel};
use crate::commands::{held_out, memory};
use crate::display::{AmountProgress, Display, note, print, print_json, render};
use crate::exit::UsageError;
use crate::files::check_writable;

/// The content of `--output` and `--json`.
#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    provenance: Provenance,
    fewshot_seed: u64,
    limit: Option<usize>,
    context_length: usize,
    rope: RopeMethod,
    seconds: f64,
    results: &'a [TaskResult],
}

pub(super) fn run(args: &TasksArgs, model: &Path, device: DeviceChoice) -> Result<()> {
    let tasks = find(args)?;
    if let Some(output) = &args.output {
        check_writable(output, args.overwrite)?;
    }
    let LoadedModel { model, directory } = model::load_for_inference(model, device)?;
    let inference = model::inference(&model)?;
    drop(model);
    let context_length = args.context_length.map(|length| length.0);
    let context_length = context_length.unwrap_or(inference.config().max_position_embeddings);
    let inference = with_context(inference, context_length, args.rope)?;
    let config = inference.config().clone();
    let modes = attentions::modes(&args.attentions, &config)?;
    let tokenizer = held_out::tokenizer_of(&directory, &config)?;
    let prepared = prepare(args, &tasks, &tokenizer, context_length)?;
    let defaults = defaults(&directory, &config.eos_token_id, &tokenizer)?;
    let evaluator = Evaluator {
        model: Arc::new(inference),
        tokenizer: &tokenizer,
        rule: args.attentions.selection,
        batch_tokens: args.batch_tokens,
        generation: GenerationSettings {
            eos_token_ids: defaults.eos_token_ids,
            repetition_penalty: defaults.sampling.repetition_penalty,
        },
    };
    let settings = settings(args, &directory, &evaluator, &prepared, &modes)?;
    let open = |output: &PathBuf| Journal::open(output, settings, args.overwrite);
    let mut journal = args.output.as_ref().map(open).transpose()?;
    let start = Instant::now();
    let results = evaluate(args, &evaluator, &prepared, &modes, journal.as_mut())?;
    let rule = args.attentions.selection;
    let output = Output {
        provenance: Provenance::new(&directory, &evaluator.model, &tokenizer, rule)?,
        fewshot_seed: args.fewshot_seed,
        limit: args.limit,
        context_length,
        rope: args.rope,
        seconds: start.elapsed().as_secs_f64(),
        results: &results,
    };
    if let Some(path) = &args.output {
        ssa_files::write_json(path, &output)?;
        journal.map(Journal::remove).transpose()?;
    }
    if args.json {
        return print_json(&output);
    }
    print(&render(&results_table(&results)))?;
    for (title, table) in cells_tables(&results) {
        print(&format!("{title}\n{}", render(&table)))?;
    }
    let seconds = output.seconds;
    print(&format!("{}, {seconds:.1} s", output.provenance.caption()))
}

/// The model with a context of so many tokens.
fn with_context(
    model: InferenceModel,
    context_length: usize,
    rope: RopeMethod,
) -> Result<InferenceModel> {
    let own = model.config().max_position_embeddings;
    let settings = RopeSettings { original_length: own, factor: None };
    let scaled = model.with_rope(&rope.config(model.config(), context_length, &settings)?)?;
    if context_length > own {
        note(&format!(
            "extrapolating: the context of {} is longer than the model's max_position_embeddings \
             of {}",
            counted(context_length, "token"),
            grouped(own)
        ));
    }
    Ok(scaled)
}

/// Measurements that are verbs of their own, for an error about a task of no known name.
const MEASUREMENTS: [&str; 2] = ["perplexity", "context-length"];

fn with_measurements(error: EvalError) -> EvalError {
    match error {
        EvalError::UnknownTask(mut unknown) => {
            unknown.expected.extend(MEASUREMENTS);
            EvalError::UnknownTask(unknown)
        }
        error => error,
    }
}

/// The tasks, each of another name.
fn find(args: &TasksArgs) -> Result<Vec<Task>> {
    let mut tasks: Vec<Task> = Vec::new();
    for name in &args.tasks {
        let task = Task::find(name).map_err(with_measurements)?;
        if tasks.iter().any(|known| known.name() == task.name()) {
            let message = format!("{name}: another task is named `{}`, too", task.name());
            return Err(UsageError(message).into());
        }
        tasks.push(task);
    }
    let unused = args.data.iter().find(|rows| tasks.iter().all(|task| task.name() != rows.task));
    match unused {
        None => Ok(tasks),
        Some(rows) => {
            let names: Vec<String> =
                tasks.iter().map(|task| format!("`{}`", task.name())).collect();
            Err(UsageError(format!(
                "--data {}: there is no such task, only {}",
                rows.task,
                names.join(", ")
            ))
            .into())
        }
    }
}

fn prepare(
    args: &TasksArgs,
    tasks: &[Task],
    tokenizer: &Tokenizer,
    context_length: usize,
) -> Result<Vec<PreparedTask>> {
    let settings = PrepareSettings {
        rows: &args.data,
        num_fewshot: args.num_fewshot,
        limit: args.limit,
        seed: args.fewshot_seed,
        context_length,
        grid: GridSettings {
            lengths: args.grid.lengths.iter().map(|length| length.0).collect(),
            depths: args.grid.depths.clone(),
            samples: args.grid.samples,
            seed: args.grid.seed,
        },
    };
    let mut prepared = Vec::with_capacity(tasks.len());
    for task in tasks {
        let task = task.prepare(&settings, tokenizer)?;
        let truncation = task.truncation();
        if truncation.requests > 0 {
            note(&format!(
                "warning: {}: the context of {} does not fit into the {} tokens of the model: {} \
                 dropped",
                task.name(),
                counted(truncation.requests, "request"),
                grouped(settings.context_length),
                counted(truncation.tokens, "token"),
            ));
        }
        let repeated = task.generated().map_or(0, |facts| facts.repeated);
        if repeated > 0 {
            note(&format!(
                "warning: {}: {} the text of --data more than once, because it is too short",
                task.name(),
                if repeated == 1 {
                    "1 document repeats".to_owned()
                } else {
                    format!("{} repeat", counted(repeated, "document"))
                },
            ));
        }
        prepared.push(task);
    }
    Ok(prepared)
}

/// Everything that decides the answers.
fn settings(
    args: &TasksArgs,
    directory: &Path,
    evaluator: &Evaluator<'_>,
    prepared: &[PreparedTask],
    modes: &[InferenceMode],
) -> Result<Value> {
    let requests: Vec<(&str, String)> =
        prepared.iter().map(|task| (task.name(), task.sha256())).collect();
    let modes: Vec<String> = modes.iter().map(ToString::to_string).collect();
    let own = [
        ("attentions", json!(modes)),
        ("context_length", json!(evaluator.model.config().max_position_embeddings)),
        ("rope", json!(args.rope.to_string())),
        ("requests", json!(requests)),
    ];
    journal::settings(directory, &evaluator.model, evaluator.rule, own)
}

fn evaluate(
    args: &TasksArgs,
    evaluator: &Evaluator<'_>,
    prepared: &[PreparedTask],
    modes: &[InferenceMode],
    mut journal: Option<&mut Journal>,
) -> Result<Vec<TaskResult>> {
    for (task, mode) in prepared.iter().flat_map(|task| modes.iter().map(move |&mode| (task, mode)))
    {
        let bytes = evaluator.cache_bytes(task, mode);
        memory::require(evaluator.model.device(), bytes, "the cache of keys and values", |_| {
            "pass a smaller --batch-tokens".to_owned()
        })?;
    }
    let documents: usize = prepared.iter().map(PreparedTask::documents).sum();
    let total = (documents * modes.len()) as u64;
    let resumed = journal::resumed(journal.as_deref(), "document") as u64;
    let mut progress = AmountProgress::new(Display::choose(false), "evaluating");
    let (mut results, mut finished) = (Vec::new(), 0);
    for (number, mode) in modes.iter().enumerate() {
        for (index, task) in prepared.iter().enumerate() {
            let part = number * prepared.len() + index;
            let mut answers = journal.as_mut().map_or_else(Vec::new, |journal| journal.take(part));
            let skipped = answers.len();
            let counts = || vec![task.name().to_owned(), mode.to_string()];
            let mut take = |new: Vec<Answer>| {
                if let Some(journal) = &mut journal {
                    journal.add(part, &new)?;
                }
                answers.push(new);
                progress.set(resumed, finished + answers.len() as u64, total, counts);
                Ok(())
            };
            evaluator.run(task, *mode, skipped, &mut take)?;
            finished += answers.len() as u64;
            results.push(task.result(*mode, &answers, args.log_samples));
        }
    }
    progress.finish();
    Ok(results)
}
