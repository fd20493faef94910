//! `ssa eval` and `ssa analyze`: measuring a checkpoint on held-out text.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use ssa_infer::{Budget, InvalidBudget};
use ssa_kernels::ops::attention::selection::SelectionRule;

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

/// Measure perplexity and bits per byte with full attention and sparse attention at any budget.
///
/// Bits per byte, the bits of all targets over the bytes of the text, is comparable across
/// tokenizers. KL is the divergence between the next-token distributions of full and sparse
/// attention, in nats per token.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa eval perplexity --model runs/demo/checkpoint
  ssa eval perplexity --model runs/demo/checkpoint --data notes/ --budget 16x4,16x8
  ssa eval perplexity --model runs/demo/checkpoint --budget 16x8,mass=0.9,2..32
  ssa eval perplexity --model HuggingFaceTB/SmolLM2-135M --data notes/ --budget 16x16")]
pub(crate) struct PerplexityArgs {
    #[command(flatten)]
    pub(crate) held_out: HeldOutArgs,
    /// Sparse attention budgets, block size x number of blocks, such as 16x4,16x8, or the share of
    /// the attention to keep within a number of blocks, such as mass=0.95,4..64. Default: the
    /// model's block size with 1, 2, 4, 8, 16 and 32 blocks, and the training budget.
    #[arg(long = "budget", alias = "budgets", value_name = "BUDGET,...")]
    pub(crate) budgets: Vec<BudgetList>,
    /// Tokens for the mean attention sparsity, rounded up to whole batches; 0 skips it. It costs
    /// more than the losses, which always use the whole text.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub(crate) analysis_tokens: usize,
}

/// Budgets separated by commas. One by attention mass has a comma itself.
#[derive(Clone, Debug)]
pub(crate) struct BudgetList(pub(crate) Vec<Budget>);

impl FromStr for BudgetList {
    type Err = InvalidBudget;

    fn from_str(text: &str) -> Result<Self, InvalidBudget> {
        let mut budgets = Vec::new();
        let mut parts = text.split(',');
        while let Some(part) = parts.next() {
            let range = if part.starts_with("mass=") { parts.next() } else { None };
            let budget = range.map_or_else(|| part.to_owned(), |range| format!("{part},{range}"));
            budgets.push(budget.parse()?);
        }
        Ok(Self(budgets))
    }
}

/// Compare full and sparse attention inside every layer of a checkpoint.
///
/// For the hidden states of full and of sparse inference, measures the full-attention weight on the
/// selected blocks, the entropy of full attention, the distance between the two outputs, and the
/// bound of Theorem 1 on that distance.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa analyze --model runs/demo/checkpoint
  ssa analyze --model runs/demo/checkpoint --budget 16x8 --json")]
pub(crate) struct AnalyzeArgs {
    #[command(flatten)]
    pub(crate) held_out: HeldOutArgs,
    /// Sparse attention budget: block size x number of blocks, such as 16x4, or the share of the
    /// attention to keep within a number of blocks, such as mass=0.95,4..64: then the table has the
    /// blocks read, and the estimated and the true share. Default: the training budget.
    #[arg(long, value_name = "BUDGET")]
    pub(crate) budget: Option<Budget>,
    /// Tokens to analyze, rounded up to whole batches.
    #[arg(long, value_name = "N", default_value = "8192", value_parser = parse_positive)]
    pub(crate) tokens: usize,
}

/// A checkpoint and the text to measure it on, for both verbs.
#[derive(Debug, Args)]
pub(crate) struct HeldOutArgs {
    /// Checkpoint directory in Hugging Face layout (config.json, safetensors weights); a run
    /// directory: then its trained model, or its last checkpoint if it is not finished; or a model
    /// of the Hugging Face Hub, `OWNER/NAME[@REVISION]`.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: PathBuf,
    /// Text files or directories to measure on, or corpora from `ssa data prepare`. Default: the
    /// text held out by the run of the checkpoint, according to its config.toml; without a run, the
    /// default held-out part of the built-in text.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Tokens per row. Default: as in the run, else max_position_embeddings of the model, at most
    /// 1024.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = |text: &str| parse_size(text, 2, super::LONGEST_ROW))]
    pub(crate) sequence_length: Option<usize>,
    /// Rows per batch. Results do not depend on this.
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_positive)]
    pub(crate) batch_size: usize,
    /// Rule for block selection: exact top-k, or the approximation in the released kernel, for
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
