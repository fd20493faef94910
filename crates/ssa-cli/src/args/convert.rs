//! `ssa convert`.

use std::path::PathBuf;

use clap::Args;

use super::parse_positive;

/// Turn a pretrained model into an SSA model that computes the same function under full attention.
///
/// Reads Llama, Mistral, Qwen2 and Qwen3 models without gates. The new model has gates whose weights
/// are zero, so that every gate is 1/2, and doubled output projections: under full attention its
/// logits are the same. Sparse attention becomes good by training it for a few hundred steps, with
/// `ssa train --set model.init_from=DIR`.
///
/// Weights are written as F32. Tokenizer files and generation_config.json come along.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa convert --from HuggingFaceTB/SmolLM2-135M-Instruct --to smollm2-ssa
  ssa convert --from models/qwen3 --to qwen3-ssa --block-size 16 --block-counts 32")]
pub(crate) struct ConvertArgs {
    /// Model to convert: a checkpoint directory in Hugging Face layout, or a model of the Hugging
    /// Face Hub, OWNER/NAME[@REVISION].
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) from: PathBuf,
    /// Directory to write; it must not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Tokens of a block of sparse attention.
    #[arg(long, value_name = "N", default_value = "16", value_parser = parse_positive)]
    pub(crate) block_size: usize,
    /// Blocks that a query attends to, its own included.
    #[arg(long, value_name = "N", default_value = "16", value_parser = parse_positive)]
    pub(crate) block_counts: usize,
}
