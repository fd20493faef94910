//! `ssa eval TASK...`: benchmark tasks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use ssa_data::Tokenizer;
use ssa_eval::harness::{
    Answer, Evaluator, GenerationSettings, InferenceMode, Journal, PrepareSettings, PreparedTask,
    Task, TaskResult, results_table,
};
use ssa_infer::Budget;
use ssa_model::{AttentionMode, Method, ModelConfig};
use ssa_report::number::{counted, grouped};

use crate::args::{DeviceChoice, TasksArgs};
use crate::commands::generation::defaults;
use crate::commands::model::{self, LoadedModel};
use crate::commands::{check_budget, command_line, held_out, memory, require_mode};
use crate::display::{AmountProgress, Display, note, print, print_json, render};
use crate::exit::UsageError;
use crate::files::check_writable;

/// The content of `--output` and `--json`.
#[derive(Serialize)]
struct Output<'a> {
    version: &'static str,
    commit: &'static str,
    command: String,
    date: String,
    model: String,
    method: Method,
    device: String,
    /// SHA-256 of the tokenizer; none for bytes.
    tokenizer: Option<&'a str>,
    selection: String,
    fewshot_seed: u64,
    limit: Option<usize>,
    seconds: f64,
    results: &'a [TaskResult],
}

pub(super) fn run(args: &TasksArgs, model: &Path, device: DeviceChoice) -> Result<()> {
    let tasks = find(args)?;
    if let Some(output) = &args.output {
        check_writable(output, args.overwrite)?;
    }
    let LoadedModel { model, directory } = model::load(model, device)?;
    let config = model.config().clone();
    let modes = modes(args, &config)?;
    let tokenizer = held_out::tokenizer_of(&directory, &config)?;
    let prepared = prepare(args, &tasks, &tokenizer, &config)?;
    let defaults = defaults(&directory, &config.eos_token_id, &tokenizer)?;
    let evaluator = Evaluator {
        model: Arc::new(model::inference(&model)?),
        tokenizer: &tokenizer,
        rule: args.selection,
        batch_tokens: args.batch_tokens,
        generation: GenerationSettings {
            eos_token_ids: defaults.eos_token_ids,
            repetition_penalty: defaults.sampling.repetition_penalty,
        },
    };
    drop(model);
    let settings = settings(args, &directory, &evaluator, &prepared, &modes)?;
    let open = |output: &PathBuf| Journal::open(output, settings, args.overwrite);
    let mut journal = args.output.as_ref().map(open).transpose()?;
    let start = Instant::now();
    let results = evaluate(args, &evaluator, &prepared, &modes, journal.as_mut())?;
    let now = Timestamp::try_from(SystemTime::now()).context("the clock has an invalid year")?;
    let output = Output {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("SSA_COMMIT"),
        command: command_line(),
        date: now.to_string(),
        model: directory.display().to_string(),
        method: config.attention_method,
        device: evaluator.model.device().to_string(),
        tokenizer: tokenizer.sha256(),
        selection: args.selection.to_string(),
        fewshot_seed: args.fewshot_seed,
        limit: args.limit,
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
    let seconds = output.seconds;
    print(&format!("{} ({}), {}, {seconds:.1} s", output.model, output.method, output.device))
}

/// The tasks, each of another name.
fn find(args: &TasksArgs) -> Result<Vec<Task>> {
    let mut tasks: Vec<Task> = Vec::new();
    for name in &args.tasks {
        let task = Task::find(name)?;
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

/// The attentions: full unless the flags say otherwise, then each budget.
fn modes(args: &TasksArgs, config: &ModelConfig) -> Result<Vec<InferenceMode>> {
    let method = config.attention_method;
    let mut budgets: Vec<Budget> = args.budgets.iter().flat_map(|list| list.0.clone()).collect();
    let mut attentions = args.attention.clone();
    if attentions.is_empty() {
        let full = method.has_mode(AttentionMode::Full);
        attentions.extend(full.then_some(AttentionMode::Full));
        if !full || !budgets.is_empty() {
            attentions.push(AttentionMode::Sparse);
        }
    }
    attentions.iter().try_for_each(|&mode| require_mode(method, mode))?;
    if !budgets.is_empty() && !attentions.contains(&AttentionMode::Sparse) {
        let message = "--budget has no effect on full attention\nhint: pass --attention sparse";
        return Err(UsageError(message.to_owned()).into());
    }
    if budgets.is_empty() {
        budgets.push(Budget::Blocks(config.budget));
    }
    let mut modes: Vec<InferenceMode> = Vec::new();
    for mode in attentions {
        let budgets = match mode {
            AttentionMode::Full => vec![None],
            AttentionMode::Sparse => budgets.iter().copied().map(Some).collect(),
        };
        for budget in budgets {
            budget.map_or(Ok(()), |budget| check_budget(budget, args.selection))?;
            let mode = InferenceMode { mode, budget };
            if !modes.contains(&mode) {
                modes.push(mode);
            }
        }
    }
    Ok(modes)
}

fn prepare(
    args: &TasksArgs,
    tasks: &[Task],
    tokenizer: &Tokenizer,
    config: &ModelConfig,
) -> Result<Vec<PreparedTask>> {
    let settings = PrepareSettings {
        rows: &args.data,
        num_fewshot: args.num_fewshot,
        limit: args.limit,
        seed: args.fewshot_seed,
        context_length: config.max_position_embeddings,
    };
    let mut prepared = Vec::with_capacity(tasks.len());
    for task in tasks {
        let task = task.prepare(&settings, tokenizer)?;
        let truncation = task.truncation();
        if truncation.requests > 0 {
            note(&format!(
                "warning: {}: the context of {} does not fit into the {} tokens of the model: {} \
                 dropped from their beginning",
                task.name(),
                counted(truncation.requests, "request"),
                grouped(settings.context_length),
                counted(truncation.tokens, "token"),
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
    let modes: Vec<String> = modes.iter().map(describe).collect();
    let mut weights = Vec::new();
    let files = std::fs::read_dir(directory)
        .with_context(|| format!("{}: cannot be read", directory.display()))?;
    for file in files.filter_map(Result::ok) {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") {
            // A link of the Hub's cache has the file's size and time.
            let metadata = std::fs::metadata(file.path())
                .with_context(|| format!("{}: cannot be read", file.path().display()))?;
            // Some file systems have no times, and clocks can be wrong.
            let modified = metadata.modified().ok();
            let since = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            weights.push(json!([name, metadata.len(), since.map(|since| since.as_secs())]));
        }
    }
    weights.sort_by_key(ToString::to_string);
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": env!("SSA_COMMIT"),
        "model": directory,
        "weights": weights,
        "device": evaluator.model.device().to_string(),
        "attentions": modes,
        "selection": args.selection.to_string(),
        "requests": requests,
    }))
}

fn describe(mode: &InferenceMode) -> String {
    let budget = mode.budget.map_or_else(String::new, |budget| format!(" {budget}"));
    format!("{}{budget}", mode.mode)
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
    let resumed = journal.as_ref().map_or(0, |journal| journal.resumed()) as u64;
    if let Some(journal) = journal.as_ref().filter(|_| resumed > 0) {
        note(&format!(
            "resuming {}: {} done",
            journal.path().display(),
            counted(resumed, "document")
        ));
    }
    let mut progress = AmountProgress::new(Display::choose(false), "evaluating");
    let (mut results, mut finished) = (Vec::new(), 0);
    for (number, mode) in modes.iter().enumerate() {
        for (index, task) in prepared.iter().enumerate() {
            let part = number * prepared.len() + index;
            let mut answers = journal.as_mut().map_or_else(Vec::new, |journal| journal.take(part));
            let skipped = answers.len();
            let counts = || vec![task.name().to_owned(), describe(mode)];
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
