//! The checkpoint and the text that `eval perplexity` and `analyze` work on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ssa_data::{ByteTokenizer, Document, read_documents, unigram_bits_per_byte};
use ssa_eval::EvalBatch;
use ssa_model::{Model, ModelConfig};
use ssa_train::{TrainConfig, TrainPlan};

use crate::args::HeldOutArgs;
use crate::display::note;
use crate::exit::{FileError, UsageError};

/// Rows are not longer than this unless asked for: attention over all tokens costs the square of it.
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

/// Documents to measure on.
struct Text {
    documents: Vec<Document>,
    source: String,
    baseline_bits_per_byte: Option<f64>,
}

impl HeldOut {
    pub(super) fn load(args: &HeldOutArgs) -> Result<Self> {
        let model = Model::load(&args.model)?;
        check_vocabulary(&args.model, model.config())?;
        let run = run_config(&args.model)?;
        let sequence_length = sequence_length(args, model.config(), run.as_ref())?;
        let text = if args.data.is_empty() { held_out_text(run)? } else { given_text(&args.data)? };
        let batches = EvalBatch::pack(&text.documents, sequence_length, args.batch_size)?;
        note(&format!("measuring on {}", text.source));
        let Text { source, baseline_bits_per_byte, .. } = text;
        Ok(Self { model, batches, source, baseline_bits_per_byte })
    }
}

fn check_vocabulary(directory: &Path, config: &ModelConfig) -> Result<()> {
    let needed = ByteTokenizer::VOCAB_SIZE;
    if config.vocab_size == needed {
        return Ok(());
    }
    Err(FileError(format!(
        "{} has a vocabulary of {}, but text is read as bytes, which takes one of {needed}; `ssa forward` runs models of \
         any vocabulary on token ids",
        directory.display(),
        config.vocab_size
    ))
    .into())
}

/// The configuration of the run that wrote a checkpoint, if it is still where the run left it.
fn run_config(checkpoint: &Path) -> Result<Option<TrainConfig>> {
    let run = fs::canonicalize(checkpoint).ok().and_then(|path| path.parent().map(Path::to_owned));
    match run.filter(|run| run.join("metrics.jsonl").is_file() && run.join("config.toml").is_file()) {
        Some(run) => Ok(Some(TrainConfig::load(&run.join("config.toml"), &[])?)),
        None => Ok(None),
    }
}

fn sequence_length(args: &HeldOutArgs, config: &ModelConfig, run: Option<&TrainConfig>) -> Result<usize> {
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

fn given_text(paths: &[PathBuf]) -> Result<Text> {
    let documents = read_documents(paths)?;
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    Ok(Text { documents, source: names.join(", "), baseline_bits_per_byte: None })
}

/// The text that training held out: of the run, or of the built-in corpus by default settings.
fn held_out_text(run: Option<TrainConfig>) -> Result<Text> {
    let of_run = run.is_some();
    let config = run.unwrap_or_default();
    let corpus = if config.data.paths.is_empty() { " (built-in corpus)" } else { "" };
    let source = if of_run {
        format!("the text held out by the run{corpus}")
    } else {
        "the held-out part of the built-in corpus (default seed and share)".to_owned()
    };
    let split = TrainPlan::new(config)?
        .text()
        .context("the text that the checkpoint's run held out cannot be read again; pass --data")?;
    let baseline = unigram_bits_per_byte(&split.train, &split.held_out);
    Ok(Text { documents: split.held_out, source, baseline_bits_per_byte: Some(baseline) })
}
