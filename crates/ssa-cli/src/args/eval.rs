//! `ssa eval`.

use clap::{Args, Subcommand};
use ssa_model::SparseBudget;

use super::HeldOutArgs;

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
