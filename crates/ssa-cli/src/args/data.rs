//! `ssa data`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ssa_data::{Format, InputOptions, Packing, Part, SHARD_TOKENS};

use super::{LARGEST_VOCABULARY, LONGEST_ROW, parse_positive, parse_size};

/// Prepare text for training: tokenise it into shards, train a tokenizer, look at a corpus.
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

/// Tokenise text into shards that training reads.
///
/// The shards are Megatron .bin and .idx files with a manifest.json and a copy of the tokenizer
/// beside them. The files do not depend on the number of threads. A run that was interrupted is
/// continued by the same command, after its last whole shard.
#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Directory for the shards, new or of a run to be continued.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// What makes tokens of text: `bytes`, a tokenizer.json, or a directory with one.
    #[arg(long, value_name = "NAME", default_value = ssa_data::BYTES)]
    pub(crate) tokenizer: PathBuf,
    /// Token that ends every document; without it as the tokenizer_config.json beside the tokenizer
    /// says.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) eos_token: Option<String>,
    /// Tokens after which a shard ends with the document.
    #[arg(long, value_name = "N", default_value_t = SHARD_TOKENS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) shard_tokens: u64,
    /// Do only this part of the work, such as 1/4 to 4/4 on four machines; all may write into one
    /// directory.
    #[arg(long, value_name = "I/N", default_value = "1/1", hide_default_value = true, value_parser = parse_part)]
    pub(crate) shard: Part,
    /// Print JSON instead of a summary.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Train a byte-level BPE tokenizer.
///
/// Writes tokenizer.json and tokenizer_config.json. The end of a document is the token
/// <|endoftext|>, which has id 0.
#[derive(Debug, Args)]
pub(crate) struct TrainTokenizerArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Tokens of the vocabulary: 256 bytes, the end of a document, and as many merges as are left.
    #[arg(long, value_name = "N", value_parser = |text: &str| parse_size(text, 257, LARGEST_VOCABULARY))]
    pub(crate) vocab_size: usize,
    /// Directory for the tokenizer.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// How often a pair must occur to be merged.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) min_frequency: u64,
}

/// Check a corpus against its manifest, and show what is in it: figures about its tokens, and rows
/// as training sees them.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Directory with shards, or a single .bin or .idx file.
    #[arg(value_name = "CORPUS")]
    pub(crate) corpus: PathBuf,
    /// Rows to show.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) rows: usize,
    /// Tokens of a row.
    #[arg(long, value_name = "N", default_value = "256", value_parser = |text: &str| parse_size(text, 2, LONGEST_ROW))]
    pub(crate) sequence_length: usize,
    /// How documents are packed into rows: concat, best-fit or greedy.
    #[arg(long, value_name = "PACKING", default_value = "concat")]
    pub(crate) packing: Packing,
    /// Seed of the order of documents.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Tokenizer of a corpus that another program made: a tokenizer.json, or a directory with one.
    #[arg(long, value_name = "NAME")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Leave out the checksums and the figures, which take as long as reading everything.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print JSON instead of tables and text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where text comes from.
#[derive(Debug, Args)]
pub(crate) struct InputArgs {
    /// Files (.txt, .md, .jsonl, .parquet; also with .gz or .zst), directories, patterns, `-` for
    /// standard input, or `hf://datasets/OWNER/NAME[@REVISION][/PATTERN]`.
    #[arg(value_name = "INPUT", required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    /// How files are read.
    #[arg(long, value_enum, default_value_t = InputFormat::Auto)]
    pub(crate) format: InputFormat,
    /// Key of a JSON object, or column of a Parquet file, that holds the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) text_field: String,
    /// Key or column that holds a conversation, a list of {role, content}, to be read instead; it
    /// becomes text by the tokenizer's chat template.
    #[arg(long, value_name = "NAME", conflicts_with = "text_field")]
    pub(crate) conversations_field: Option<String>,
    /// Largest document; it must fit in memory.
    #[arg(long, value_name = "N", default_value = "1073741824", value_parser = parse_positive)]
    pub(crate) max_document_bytes: usize,
}

/// [`Format`] as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// By the ending of the name; in directories only files of a known kind.
    Auto,
    /// Every file is one document.
    Text,
    /// Every line is a JSON object.
    Jsonl,
}

impl InputArgs {
    /// The flags as the library takes them.
    pub(crate) fn options(&self) -> InputOptions {
        InputOptions {
            format: match self.format {
                InputFormat::Auto => Format::Auto,
                InputFormat::Text => Format::Text,
                InputFormat::Jsonl => Format::Jsonl,
            },
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
