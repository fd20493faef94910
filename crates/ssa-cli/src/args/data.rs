//! `ssa data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ssa_data::{Format, InputOptions, Packing, Part, SHARD_TOKENS};

use super::{ThreadsArgs, named, parse_positive, parse_size};

/// Prepare text for training: tokenize it into shards, train a tokenizer, inspect a corpus.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    Prepare(PrepareArgs),
    TrainTokenizer(TrainTokenizerArgs),
    Inspect(InspectArgs),
}

/// Tokenize text into shards that training reads.
///
/// The shards are Megatron .bin and .idx files, with a manifest.json and a copy of the tokenizer.
/// The files do not depend on the number of threads. The same command resumes an interrupted run
/// after its last complete shard.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa data prepare notes/ --output corpus
  ssa data prepare 'web/*.jsonl.zst' --text-field body --tokenizer llama3/ --output corpus
  zcat dump.gz | ssa data prepare - --format jsonl --output corpus")]
pub(crate) struct PrepareArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Output directory: new, empty, or of an interrupted run to resume.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Tokenizer: `bytes`, a tokenizer.json, a directory with one, or a model on the Hugging Face
    /// Hub (`OWNER/NAME`, or `hf://OWNER/NAME[@REVISION]`).
    #[arg(long, value_name = "NAME", default_value = ssa_data::BYTES)]
    pub(crate) tokenizer: PathBuf,
    /// Token that ends every document (default: from the tokenizer_config.json next to the
    /// tokenizer).
    #[arg(long, value_name = "TOKEN")]
    pub(crate) eos_token: Option<String>,
    /// Tokens after which a shard ends, at the end of the current document.
    #[arg(long, value_name = "N", default_value_t = SHARD_TOKENS)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) shard_tokens: u64,
    /// Process only this part of the input, such as 1/4 to 4/4 on four machines; all may write to
    /// one directory.
    #[arg(long, value_name = "I/N", default_value = "1/1", hide_default_value = true)]
    #[arg(value_parser = parse_part)]
    pub(crate) part: Part,
    /// Print JSON instead of a summary.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) threads: ThreadsArgs,
}

/// Train a byte-level BPE tokenizer.
///
/// Writes tokenizer.json and tokenizer_config.json. The end-of-document token is <|endoftext|> with
/// id 0.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa data train-tokenizer notes/ --vocab-size 8192 --output tokenizer")]
pub(crate) struct TrainTokenizerArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Vocabulary size: 256 bytes, the end-of-document token, and merges for the rest.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = |text: &str| parse_size(text, 257, super::LARGEST_VOCABULARY))]
    pub(crate) vocab_size: usize,
    /// Output directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Minimum number of occurrences of a pair to be merged.
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) min_frequency: u64,
    #[command(flatten)]
    pub(crate) threads: ThreadsArgs,
}

/// Check a corpus against its manifest, and show token statistics and rows as used in training.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa data inspect corpus
  ssa data inspect corpus --rows 5 --sequence-length 512 --packing best-fit")]
pub(crate) struct InspectArgs {
    /// Directory with shards, or a single .bin or .idx file.
    #[arg(value_name = "CORPUS")]
    pub(crate) corpus: PathBuf,
    /// Rows to show.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) rows: usize,
    /// Tokens per row.
    #[arg(long, value_name = "N", default_value = "256")]
    #[arg(value_parser = |text: &str| parse_size(text, 2, super::LONGEST_ROW))]
    pub(crate) sequence_length: usize,
    /// How documents are packed into rows.
    #[arg(long, value_name = "PACKING", default_value_t = Packing::Concat)]
    #[arg(value_parser = named::<Packing>())]
    pub(crate) packing: Packing,
    /// Seed of the order of documents.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Tokenizer of a corpus from another program: a tokenizer.json, a directory with one, or a
    /// model on the Hugging Face Hub.
    #[arg(long, value_name = "NAME")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Skip checksums and statistics, which read all files.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print JSON instead of tables and text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The source of text.
#[derive(Debug, Args)]
pub(crate) struct InputArgs {
    /// Files (text, JSON lines, JSON, Parquet; also compressed: .gz, .zst, .bz2, .xz), directories,
    /// glob patterns, `-` for standard input, or `hf://datasets/OWNER/NAME[@REVISION][/PATTERN]`.
    #[arg(value_name = "INPUT", required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    /// Input format: Parquet, JSON lines, JSON or otherwise text, by content and name (auto); every
    /// file as one document (text); JSON lines, an array of objects, or objects that span several
    /// lines (jsonl).
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Auto)]
    #[arg(value_parser = named::<Format>())]
    pub(crate) format: Format,
    /// JSON key or Parquet column of the text; dots select fields of nested objects (data.body).
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) text_field: String,
    /// Key or column of a conversation (a list of messages) to read instead; the tokenizer's chat
    /// template formats it, with the `tools` next to it.
    #[arg(long, value_name = "NAME", conflicts_with = "text_field")]
    pub(crate) conversations_field: Option<String>,
    /// Maximum document size in bytes; a document must fit in memory.
    #[arg(long, value_name = "N", default_value = "1073741824", value_parser = parse_positive)]
    pub(crate) max_document_bytes: usize,
}

impl InputArgs {
    /// Converts the flags to library options.
    pub(crate) fn options(&self) -> InputOptions {
        InputOptions {
            format: self.format,
            text_field: self.text_field.clone(),
            conversations_field: self.conversations_field.clone(),
            max_document_bytes: self.max_document_bytes as u64,
        }
    }
}

fn parse_part(text: &str) -> Result<Part, String> {
    let numbers = text
        .split_once('/')
        .and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
    let part = numbers.and_then(|(index, count)| Part::new(index, count).ok());
    part.ok_or_else(|| "expected i/n with i from 1 to n".to_owned())
}
