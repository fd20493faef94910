//! `ssa eval` and `ssa analyze`: a checkpoint on text that it was not trained on.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::SparseBudget;

use super::{ComputeArgs, named, parse_positive, parse_size};

/// Measure a checkpoint on held-out text.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: EvalCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    Perplexity(PerplexityArgs),
}

/// Perplexity and bits per byte under full attention and under sparse attention at any budget.
///
/// Bits per byte is the number to compare across tokenizers: the bits of all targets over the bytes
/// of the text. KL is the divergence of the sparse next-token distribution from that of full
/// attention, in nats per token.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa eval perplexity --model runs/demo/checkpoint
  ssa eval perplexity --model runs/demo/checkpoint --data notes/ --budget 16x4,16x8
  ssa eval perplexity --model HuggingFaceTB/SmolLM2-135M --data notes/ --budget 16x16")]
pub(crate) struct PerplexityArgs {
    #[command(flatten)]
    pub(crate) held_out: HeldOutArgs,
    /// Budgets of sparse attention, block size x number of blocks, such as 16x4,16x8. Without it
    /// the block size of the model with 1, 2, 4, 8, 16 and 32 blocks, and the trained budget.
    #[arg(long = "budget", alias = "budgets", value_name = "BUDGET,...", value_delimiter = ',')]
    pub(crate) budgets: Vec<SparseBudget>,
    /// Tokens that attention sparsity is averaged over, rounded up to whole batches; 0 skips it. It
    /// costs more than the losses, which always use all of the text.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub(crate) analysis_tokens: usize,
}

/// Compare full and sparse attention inside every layer of a checkpoint.
///
/// Under the hidden states of full and of sparse inference: how much of the full-attention weight
/// lies on the selected blocks, how concentrated full attention is, how far the outputs of both are
/// apart, and the bound of Theorem 1 on that distance.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa analyze --model runs/demo/checkpoint
  ssa analyze --model runs/demo/checkpoint --budget 16x8 --json")]
pub(crate) struct AnalyzeArgs {
    #[command(flatten)]
    pub(crate) held_out: HeldOutArgs,
    /// Budget of sparse attention, block size x number of blocks, such as 16x4; without it the
    /// trained one.
    #[arg(long, value_name = "BUDGET")]
    pub(crate) budget: Option<SparseBudget>,
    /// Tokens to analyze, rounded up to whole batches.
    #[arg(long, value_name = "N", default_value = "8192", value_parser = parse_positive)]
    pub(crate) tokens: usize,
}

/// What both verbs share: a checkpoint, and text to measure it on.
#[derive(Debug, Args)]
pub(crate) struct HeldOutArgs {
    /// Checkpoint directory in Hugging Face layout (config.json, safetensors weights); that of a run:
    /// then its trained model, or its last checkpoint if it is not finished; or a model of the
    /// Hugging Face Hub, OWNER/NAME[@REVISION].
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: PathBuf,
    /// Text to measure on, files or directories, or corpora made by `ssa data prepare`. Without it
    /// the text held out by the run that the checkpoint belongs to, as its config.toml says;
    /// without such a run, the held-out part of the built-in corpus by the default seed and share.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Tokens of a row; without it as in the run, else the model's longest document, at most 1024.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = |text: &str| parse_size(text, 2, super::LONGEST_ROW))]
    pub(crate) sequence_length: Option<usize>,
    /// Rows computed at once. Results do not depend on it.
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_positive)]
    pub(crate) batch_size: usize,
    /// Rule that selects blocks: exact top-k, or the approximation of the released kernel, for
    /// parity with published checkpoints.
    #[arg(long, value_name = "RULE", default_value_t = SelectionRule::Exact)]
    #[arg(value_parser = named::<SelectionRule>())]
    pub(crate) selection: SelectionRule,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}
