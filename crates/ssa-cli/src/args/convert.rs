//! `ssa convert`.

use std::path::PathBuf;

use clap::Args;

use super::parse_positive;

/// Convert a pretrained model to an SSA model with the same function under full attention.
///
/// Reads plain Llama, Mistral, Qwen2 and Qwen3 models. The SSA model gets gates with zero weights,
/// so that every gate is 1/2, and doubled output projections: under full attention its logits are
/// the same bit for bit in F32. To train it for sparse attention, use `ssa train --set
/// model.init_from=DIR`.
///
/// Writes weights as F32, and copies tokenizer files and generation_config.json.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa convert --from HuggingFaceTB/SmolLM2-135M-Instruct --to smollm2-ssa
  ssa convert --from models/qwen3 --to qwen3-ssa --block-size 16 --block-counts 32")]
pub(crate) struct ConvertArgs {
    /// Model to convert: a checkpoint directory in Hugging Face layout, a run directory, or a model
    /// of the Hugging Face Hub, `OWNER/NAME[@REVISION]`.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) from: PathBuf,
    /// Directory to write; it must not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Tokens per block of sparse attention.
    #[arg(long, value_name = "N", default_value = "16", value_parser = parse_positive)]
    pub(crate) block_size: usize,
    /// Blocks per query, its own included.
    #[arg(long, value_name = "N", default_value = "16", value_parser = parse_positive)]
    pub(crate) block_counts: usize,
}
