//! `ssa analyze`.

use clap::Args;
use ssa_model::SparseBudget;

use super::HeldOutArgs;

/// Compare full and sparse attention inside every layer of a checkpoint.
///
/// Under the hidden states of full and of sparse inference: how much of the full-attention weight
/// lies on the selected blocks, how concentrated full attention is, how far the outputs of both are
/// apart, and the bound of Theorem 1 on that distance.
#[derive(Debug, Args)]
pub(crate) struct AnalyzeArgs {
    #[command(flatten)]
    pub(crate) held_out: HeldOutArgs,
    /// Budget of sparse attention, block size x number of blocks, such as 16x4; without it the
    /// trained one.
    #[arg(long, value_name = "BUDGET")]
    pub(crate) budget: Option<SparseBudget>,
    /// Tokens to analyse, rounded up to whole batches.
    #[arg(long, value_name = "N", default_value = "8192", value_parser = super::parse_positive)]
    pub(crate) tokens: usize,
}
