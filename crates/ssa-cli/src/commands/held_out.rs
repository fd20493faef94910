//! The checkpoint and the text that `eval perplexity` and `analyze` work on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ssa_data::{BYTES, Corpus, Tokenizer, read_documents};
use ssa_eval::EvalBatch;
use ssa_model::{Model, ModelConfig};
use ssa_train::{HeldOutData, RunDir, TrainConfig, TrainPlan};

use super::device;
use crate::args::{DeviceChoice, HeldOutArgs};
use crate::display::note;
use crate::exit::{FileError, UsageError};

/// Rows are not longer than this unless asked for: attention over all tokens costs the square of
/// it.
const LONGEST_DEFAULT_ROW: usize = 1024;

/// A checkpoint with text to measure it on.
pub(super) struct HeldOut {
    pub(super) model: Model,
    pub(super) batches: Vec<EvalBatch>,
    /// Where the text comes from, in words.
    pub(super) source: String,
    /// What byte frequencies alone achieve; only known where the training text is.
    pub(super) baseline_bits_per_byte: Option<f64>,
}

/// Rows to measure on.
struct Text {
    batches: Vec<EvalBatch>,
    source: String,
    baseline_bits_per_byte: Option<f64>,
}

impl HeldOut {
    pub(super) fn load(args: &HeldOutArgs, device: DeviceChoice) -> Result<Self> {
        let model = device::load(&args.model, device)?;
        let run = run_config(&args.model)?;
        let sequence_length = sequence_length(args, model.config(), run.as_ref())?;
        let text = if args.data.is_empty() {
            held_out_text(args, model.config(), run, sequence_length)?
        } else {
            given_data(args, model.config(), sequence_length)?
        };
        note(&format!("measuring on {}", text.source));
        let Text { batches, source, baseline_bits_per_byte } = text;
        Ok(Self { model, batches, source, baseline_bits_per_byte })
    }
}

/// Batches of all parts, in turns, so that the first batches are a sample of all.
pub(super) fn held_out_batches(data: &HeldOutData, batch_size: usize) -> Result<Vec<EvalBatch>> {
    let parts = data.parts.iter();
    let batches =
        parts.map(|part| EvalBatch::from_rows(&part.rows, part.bytes_per_target, batch_size));
    let mut parts =
        batches.map(|batches| batches.map(Vec::into_iter)).collect::<Result<Vec<_>, _>>()?;
    let mut in_turns = Vec::new();
    while !parts.is_empty() {
        in_turns.extend(parts.iter_mut().filter_map(Iterator::next));
        parts.retain(|part| part.len() > 0);
    }
    Ok(in_turns)
}

fn check_vocabulary(directory: &Path, config: &ModelConfig, tokenizer: &Tokenizer) -> Result<()> {
    let needed = tokenizer.vocab_size();
    // More rows than tokens are usual: they pad the matrix.
    if config.vocab_size == needed
        || (config.vocab_size > needed && matches!(tokenizer, Tokenizer::Hf(_)))
    {
        return Ok(());
    }
    let read = match tokenizer {
        Tokenizer::Bytes => "text is read as bytes without a tokenizer.json beside the model",
        Tokenizer::Hf(_) => "its tokenizer has more tokens",
    };
    Err(FileError(format!(
        "{} has a vocabulary of {}, but {read}, which takes one of {needed}; put the tokenizer.json of the model into the \
         directory, or use `ssa forward`, which runs models of any vocabulary on token ids",
        directory.display(),
        config.vocab_size
    ))
    .into())
}

/// The configuration of the run that wrote a checkpoint: in the checkpoint itself if that was saved
/// during training, else beside it, if it is still where the run left it.
fn run_config(checkpoint: &Path) -> Result<Option<TrainConfig>> {
    let Ok(checkpoint) = fs::canonicalize(checkpoint) else { return Ok(None) };
    let within = Some((checkpoint.as_path(), "state.json"));
    let beside = checkpoint.parent().map(|run| (run, "metrics.jsonl"));
    let mut places = [within, beside].into_iter().flatten();
    let ours = places
        .find(|(place, proof)| place.join(proof).is_file() && place.join("config.toml").is_file());
    let Some((place, _)) = ours else { return Ok(None) };
    let config = TrainConfig::load(&place.join("config.toml"), &[])?;
    Ok(Some(config.in_directory(&RunDir::working_directory_of(place)?)))
}

fn sequence_length(
    args: &HeldOutArgs,
    config: &ModelConfig,
    run: Option<&TrainConfig>,
) -> Result<usize> {
    let longest = config.max_position_embeddings;
    match args.sequence_length {
        Some(tokens) if tokens > longest => Err(UsageError(format!(
            "--sequence-length {tokens} is longer than the model's max_position_embeddings of {longest}; pass at most that"
        ))
        .into()),
        Some(tokens) => Ok(tokens),
        None => Ok(run.map_or(LONGEST_DEFAULT_ROW, |run| run.data.sequence_length).min(longest)),
    }
}

/// What `--data` names: text, or corpora of shards.
fn given_data(args: &HeldOutArgs, config: &ModelConfig, sequence_length: usize) -> Result<Text> {
    let own = args.model.join("tokenizer.json");
    let tokenizer = if own.is_file() { &args.model } else { Path::new(BYTES) };
    let corpora = args.data.iter().filter(|path| Corpus::is_at(path)).count();
    let batches = match corpora {
        0 => given_text(args, config, tokenizer, sequence_length)?,
        all if all == args.data.len() => given_corpora(args, config, tokenizer, sequence_length)?,
        _ => {
            let message =
                "--data names both text and corpora of shards; measure one kind at a time";
            return Err(UsageError(message.to_owned()).into());
        }
    };
    let names: Vec<_> = args.data.iter().map(|path| path.display().to_string()).collect();
    Ok(Text { batches, source: names.join(", "), baseline_bits_per_byte: None })
}

fn given_text(
    args: &HeldOutArgs,
    config: &ModelConfig,
    tokenizer: &Path,
    sequence_length: usize,
) -> Result<Vec<EvalBatch>> {
    let tokenizer = Tokenizer::load(tokenizer, None)?;
    check_vocabulary(&args.model, config, &tokenizer)?;
    let documents = read_documents(&args.data)?;
    Ok(EvalBatch::pack(&documents, &tokenizer, sequence_length, args.batch_size)?)
}

/// All rows of corpora, which must have been made with the tokenizer of the model.
fn given_corpora(
    args: &HeldOutArgs,
    model: &ModelConfig,
    tokenizer: &Path,
    sequence_length: usize,
) -> Result<Vec<EvalBatch>> {
    let mut config = TrainConfig::default();
    config.data.valid_corpora.clone_from(&args.data);
    config.data.tokenizer = Some(tokenizer.to_owned());
    config.data.sequence_length = sequence_length;
    config.evaluation.tokens = usize::MAX;
    let plan = TrainPlan::new(config)?;
    check_vocabulary(&args.model, model, plan.tokenizer())?;
    held_out_batches(&plan.open_held_out()?, args.batch_size)
}

/// What training held out: of the run, or of the built-in corpus by default settings.
fn held_out_text(
    args: &HeldOutArgs,
    model: &ModelConfig,
    run: Option<TrainConfig>,
    sequence_length: usize,
) -> Result<Text> {
    let of_run = run.is_some();
    let mut config = run.unwrap_or_default();
    config.data.sequence_length = sequence_length;
    let source = match (of_run, config.data.corpora.is_empty(), config.data.paths.is_empty()) {
        (true, false, _) => "what the run held out of its corpora",
        (true, true, false) => "the text held out by the run",
        (true, true, true) => "the text held out by the run (built-in corpus)",
        (false, ..) => "the held-out part of the built-in corpus (default seed and share)",
    };
    let plan = TrainPlan::new(config)?;
    check_vocabulary(&args.model, model, plan.tokenizer())?;
    let data = plan
        .open_held_out()
        .context("the text that the checkpoint's run held out cannot be read again; pass --data")?;
    Ok(Text {
        batches: held_out_batches(&data, args.batch_size)?,
        source: source.to_owned(),
        baseline_bits_per_byte: data.baseline_bits_per_byte,
    })
}
