//! `ssa analyze`.

use clap::Args;
use ssa_model::SparseBudget;

use super::HeldOutArgs;

/// Compare full and sparse attention inside every layer of a checkpoint.
///
/// Under the hidden states of full and of sparse inference: the full-attention weight on the
/// selected blocks, the entropy of full attention, the distance between the outputs of both, and
/// the bound of Theorem 1 on that distance.
#[derive(Debug, Args)]
pub(crate) struct AnalyzeArgs {
    #[command(flatten)]
    pub(crate) held_out: HeldOutArgs,
    /// Budget of sparse attention, block size x number of blocks, such as 16x4; without it the
    /// trained one.
    #[arg(long, value_name = "BUDGET")]
    pub(crate) budget: Option<SparseBudget>,
    /// Tokens to analyze, rounded up to whole batches.
    #[arg(long, value_name = "N", default_value = "8192", value_parser = super::parse_positive)]
    pub(crate) tokens: usize,
}
