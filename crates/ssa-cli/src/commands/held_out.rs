//! The checkpoint and the text of `eval perplexity` and `analyze`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ssa_data::{
    BYTES, Corpus, DatasetOptions, HeldOut, TOKENIZER_JSON, Tokenizer, TrainSource,
    common_tokenizer, load_tokenizer, read_documents,
};
use ssa_eval::EvalBatch;
use ssa_model::{AttentionMode, Model, ModelConfig, SparseBudget};
use ssa_train::{MemoryEstimate, RunDir, TrainConfig};

use super::memory;
use super::model::{self, LoadedModel};
use crate::args::{DeviceChoice, HeldOutArgs};
use crate::display::note;
use crate::exit::{FileError, UsageError};

/// Default maximum row length: the cost of full attention is quadratic in it.
const LONGEST_DEFAULT_ROW: usize = 1024;

/// A checkpoint and the text to measure it on.
pub(super) struct Subject {
    pub(super) model: Model,
    directory: PathBuf,
    pub(super) batches: Vec<EvalBatch>,
    /// A description of the text source.
    pub(super) source: String,
    /// Bits per byte of a byte unigram model; only known if the training text is.
    pub(super) baseline_bits_per_byte: Option<f64>,
}

impl Subject {
    pub(super) fn load(args: &HeldOutArgs, device: DeviceChoice) -> Result<Self> {
        let LoadedModel { model, directory } = model::load(&args.model, device)?;
        let config = model.config();
        let run = run_config(&directory)?;
        let sequence_length = sequence_length(args, config, run.as_ref())?;
        let (held_out, source) = if args.data.is_empty() {
            of_run(&directory, config, run.as_ref(), sequence_length)?
        } else {
            given(args, &directory, config, sequence_length)?
        };
        note(&format!("measuring on {source}"));
        let longest = held_out.parts.iter().map(|part| part.rows.len()).max().unwrap_or(0);
        let tokens = args.batch_size.min(longest).saturating_mul(sequence_length);
        let bytes = MemoryEstimate::inference(config, tokens, model.device().kind());
        memory::require(&model.device(), bytes, "a batch", |_| {
            "pass a smaller --batch-size or --sequence-length".to_owned()
        })?;
        let batches = EvalBatch::of(&held_out, args.batch_size)?;
        let baseline_bits_per_byte = held_out.baseline_bits_per_byte;
        Ok(Self { model, directory, batches, source, baseline_bits_per_byte })
    }

    /// The sparse attention budget in training; `None` for a model trained without sparse
    /// attention.
    pub(super) fn trained_budget(&self) -> Option<SparseBudget> {
        let config = self.model.config();
        config.attention_method.trains_on(AttentionMode::Sparse).then_some(config.budget)
    }

    /// The caption of a table.
    pub(super) fn caption(&self) -> String {
        format!(
            "{} ({}) on {}, {}",
            self.directory.display(),
            self.model.config().attention_method,
            self.source,
            self.model.device()
        )
    }
}

/// The tokenizer of a checkpoint; without a `tokenizer.json`, text is read as bytes.
pub(super) fn tokenizer_of(directory: &Path, config: &ModelConfig) -> Result<Tokenizer> {
    let tokenizer = own_tokenizer(directory)?;
    check_vocabulary(directory, config, &tokenizer)?;
    Ok(tokenizer)
}

fn own_tokenizer(directory: &Path) -> Result<Tokenizer> {
    let own = directory.join(TOKENIZER_JSON);
    Ok(load_tokenizer(if own.is_file() { directory } else { Path::new(BYTES) }, None)?)
}

/// Refuses a model that lacks tokens of its tokenizer.
pub(super) fn check_vocabulary(
    directory: &Path,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
) -> Result<()> {
    let needed = tokenizer.vocab_size();
    // More rows than tokens are common padding.
    if config.vocab_size == needed
        || (config.vocab_size > needed && matches!(tokenizer, Tokenizer::Hf(_)))
    {
        return Ok(());
    }
    let read = match tokenizer {
        Tokenizer::Bytes => "without a tokenizer.json, text is read as bytes",
        Tokenizer::Hf(_) => "its tokenizer has more tokens",
    };
    Err(FileError(format!(
        "{}: the model has a vocabulary of {}, but {read}, which needs {needed}\nhint: put \
         the tokenizer.json of the model into the directory, or use `ssa forward`, which runs \
         models of any vocabulary on token ids",
        directory.display(),
        config.vocab_size
    ))
    .into())
}

/// The configuration of the run that wrote a checkpoint: in the checkpoint itself if it was saved
/// during training, else in the parent directory, if that is a run.
fn run_config(checkpoint: &Path) -> Result<Option<TrainConfig>> {
    let Ok(checkpoint) = fs::canonicalize(checkpoint) else { return Ok(None) };
    let within = Some((checkpoint.as_path(), "state.json"));
    let above = checkpoint.parent().map(|run| (run, "metrics.jsonl"));
    let mut places = [within, above].into_iter().flatten();
    let found = places
        .find(|(place, proof)| place.join(proof).is_file() && place.join("config.toml").is_file());
    let Some((place, _)) = found else { return Ok(None) };
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
            "--sequence-length {tokens} is longer than the model's max_position_embeddings of \
             {longest}\nhint: pass {longest} or less"
        ))
        .into()),
        Some(tokens) => Ok(tokens),
        None => Ok(run.map_or(LONGEST_DEFAULT_ROW, |run| run.data.sequence_length).min(longest)),
    }
}

/// The data of `--data`, text or corpora of shards, and its name.
fn given(
    args: &HeldOutArgs,
    directory: &Path,
    config: &ModelConfig,
    sequence_length: usize,
) -> Result<(HeldOut, String)> {
    let tokenizer = own_tokenizer(directory)?;
    let corpora = args.data.iter().filter(|path| Corpus::is_at(path)).count();
    let held_out = if corpora == 0 {
        check_vocabulary(directory, config, &tokenizer)?;
        HeldOut::from_documents(&read_documents(&args.data)?, &tokenizer, sequence_length)?
    } else if corpora == args.data.len() {
        let own = Some((directory.display().to_string(), tokenizer));
        let tokenizer = common_tokenizer(&args.data, own)?.unwrap_or(Tokenizer::Bytes);
        check_vocabulary(directory, config, &tokenizer)?;
        HeldOut::from_corpora(&args.data, &tokenizer, sequence_length)?
    } else {
        let message = "--data names both text and corpora of shards\nhint: measure one kind at a \
                       time";
        return Err(UsageError(message.to_owned()).into());
    };
    let names: Vec<_> = args.data.iter().map(|path| path.display().to_string()).collect();
    Ok((held_out, names.join(", ")))
}

/// The held-out data of the run, or of the built-in text with default settings, and its name.
fn of_run(
    directory: &Path,
    config: &ModelConfig,
    run: Option<&TrainConfig>,
    sequence_length: usize,
) -> Result<(HeldOut, String)> {
    let (options, tokenizer, name) = match run {
        None => (
            DatasetOptions::built_in(sequence_length),
            own_tokenizer(directory)?,
            "the held-out part of the built-in text (default seed and fraction)",
        ),
        Some(run) => {
            let options = DatasetOptions { sequence_length, ..run.dataset_options() };
            let name = match options.train {
                TrainSource::Corpora(_) => "the part of the corpora held out by the run",
                TrainSource::Text(_) => "the text held out by the run",
                TrainSource::BuiltIn => "the text held out by the run (built-in text)",
            };
            (options, run.data.load_tokenizer()?, name)
        }
    };
    check_vocabulary(directory, config, &tokenizer)?;
    let held_out = options.open_held_out(&tokenizer).context(
        "the text held out by the run cannot be read\nhint: pass --data to measure on \
         other text",
    )?;
    Ok((held_out, name.to_owned()))
}
