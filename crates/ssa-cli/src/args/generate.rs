//! `ssa generate` and `ssa chat`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use ssa_infer::{Budget, SamplingError, SamplingOptions};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::AttentionMode;

use super::{ComputeArgs, LARGEST_VOCABULARY, named, parse_positive, parse_size};

/// Drafts before each call at most: more are never all accepted.
const MOST_DRAFTS: usize = 64;

/// Continue a text.
///
/// The text appears on standard output as it is generated, a summary on standard error at the end:
/// tokens per second of prompt and text, blocks that sparse attention read, accepted drafts. The
/// same flags give the same text, whatever the number of threads.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa generate --model runs/demo 'fn'
  ssa generate --model DIR --file prompt.txt --attention sparse --budget 16x16
  cat prompt.txt | ssa generate --model DIR --temperature 0.8 --top-p 0.95 --seed 1 > text.txt
  ssa generate --model DIR --file prompt.txt --speculate 4 --budget mass=0.95,4..64")]
pub(crate) struct GenerateArgs {
    /// Text to continue; without it and --file, standard input. Of a file and standard input the
    /// line break at the end does not count.
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Option<String>,
    /// File with the text to continue.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) file: Option<PathBuf>,
    /// Where to shorten a prompt that does not fit into the model's context together with
    /// --max-tokens; without it such a prompt is an error.
    #[arg(long, value_name = "SIDE", value_parser = named::<TruncateSide>())]
    pub(crate) truncate: Option<TruncateSide>,
    /// Tokens to generate at most.
    #[arg(long, value_name = "N", default_value = "256", value_parser = parse_positive)]
    pub(crate) max_tokens: usize,
    /// End before this text is generated; can be repeated.
    #[arg(long = "stop", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stops: Vec<String>,
    /// Print JSON at the end, text and statistics, instead of the text as it is generated.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
}

/// Talk with a model that has a chat template.
///
/// Each line is a message. A message of several lines begins and ends with a line `"""`. Ctrl-C
/// ends an answer. `/reset` begins a new conversation, and `/quit`, Ctrl-D, or Ctrl-C before an
/// answer ends the program. The cache keeps the conversation, so only new tokens are computed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa chat --model DIR
  ssa chat --model DIR --attention sparse --budget 16x32 --temperature 0.7")]
pub(crate) struct ChatArgs {
    /// System message at the beginning of the conversation.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Tokens of an answer at most.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = parse_positive)]
    pub(crate) max_tokens: usize,
    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
}

/// A model, its attention and its sampling.
#[derive(Debug, Args)]
pub(crate) struct GenerationArgs {
    /// Checkpoint directory in Hugging Face layout (config.json, safetensors weights); a run
    /// directory: then its trained model, or its last checkpoint if it is not finished; or a model
    /// of the Hugging Face Hub, `OWNER/NAME[@REVISION]`.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: PathBuf,
    /// Attention to generate with; without it sparse if --budget is given, else full.
    #[arg(long, value_name = "MODE", value_parser = named::<AttentionMode>())]
    pub(crate) attention: Option<AttentionMode>,
    /// Budget of sparse attention: block size x number of blocks, such as 16x4, or the attention to
    /// keep within a number of blocks, such as mass=0.95,4..64. Without it the model's.
    #[arg(long, value_name = "BUDGET")]
    pub(crate) budget: Option<Budget>,
    /// Rule that selects blocks: exact top-k, or the approximation of the released kernel.
    #[arg(long, value_name = "RULE", default_value_t = SelectionRule::Exact)]
    #[arg(value_parser = named::<SelectionRule>())]
    pub(crate) selection: SelectionRule,
    /// Draft so many tokens with sparse attention, then check them with full attention in one call.
    /// The text is that of full attention alone.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = |text: &str| parse_size(text, 1, MOST_DRAFTS))]
    pub(crate) speculate: Option<usize>,
    /// Divides the logits before a token is drawn; 0 takes the most probable token. Without it, and
    /// for the next four flags, as generation_config.json of the model says, else 0.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    #[arg(value_parser = |text: &str| parse_sampling(text, |options, x| options.temperature = x))]
    pub(crate) temperature: Option<f64>,
    /// Draw from the N most probable tokens; 0 for all.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = |text: &str| parse_size(text, 0, LARGEST_VOCABULARY))]
    pub(crate) top_k: Option<usize>,
    /// Draw from the most probable tokens that together have this probability.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    #[arg(value_parser = |text: &str| parse_sampling(text, |options, x| options.top_p = x))]
    pub(crate) top_p: Option<f64>,
    /// Draw from the tokens at least P times as probable as the most probable one.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    #[arg(value_parser = |text: &str| parse_sampling(text, |options, x| options.min_p = x))]
    pub(crate) min_p: Option<f64>,
    /// Makes tokens that occur in prompt or text less probable; 1 changes nothing.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    #[arg(value_parser = |text: &str| {
        parse_sampling(text, |options, x| options.repetition_penalty = x)
    })]
    pub(crate) repetition_penalty: Option<f64>,
    /// Seed of what is drawn.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Where a prompt is shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TruncateSide {
    /// Its beginning is dropped.
    Left,
}

ssa_names::names!(TruncateSide: "side" {
    Left = "left",
});

/// A number that is possible where `set` puts it.
fn parse_sampling(text: &str, set: fn(&mut SamplingOptions, f64)) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    let mut options = SamplingOptions::GREEDY;
    set(&mut options, number);
    match options.check() {
        Ok(()) => Ok(number),
        Err(SamplingError::Setting { expected, .. }) => Err(format!("expected {expected}")),
        Err(error) => Err(error.to_string()),
    }
}
