//! `ssa forward`.

use std::path::PathBuf;

use clap::Args;
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{AttentionMode, Method, SparseBudget};

use super::{ComputeArgs, named, parse_positive};

/// Run a forward pass, optionally a backward pass, and write tensors, for parity with other code.
///
/// The output has `logits` [B, T, V]. With --train-stream it also has the scalars `loss`,
/// `cross_entropy` and `alignment_loss` of a training step with this stream; with --grads the
/// gradient of that loss for every parameter, as `grad.<parameter name>`. Each row of the input is
/// one document; the label of a token is the next token.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa forward --model runs/demo/checkpoint --input ids.safetensors --attention sparse \\
      --output logits.safetensors
  ssa forward --model runs/demo/checkpoint --input ids.safetensors --attention full \\
      --train-stream sparse --grads --output step.safetensors")]
pub(crate) struct ForwardArgs {
    /// Checkpoint directory in Hugging Face layout (config.json, safetensors weights); a run
    /// directory: then its trained model, or its last checkpoint if it is not finished; or a model
    /// of the Hugging Face Hub, `OWNER/NAME[@REVISION]`.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: PathBuf,
    /// Safetensors file with `input_ids` [B, T], I32 or I64.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Attention mode for the logits.
    #[arg(long, value_name = "MODE", value_parser = named::<AttentionMode>())]
    pub(crate) attention: AttentionMode,
    /// Attention method. Default: that of the checkpoint.
    #[arg(long, value_name = "METHOD", value_parser = named::<Method>())]
    pub(crate) method: Option<Method>,
    /// Rule for block selection: exact top-k, or the approximation in the released kernel, for
    /// parity with published checkpoints.
    #[arg(long, value_name = "RULE", default_value_t = SelectionRule::Exact)]
    #[arg(value_parser = named::<SelectionRule>())]
    pub(crate) selection: SelectionRule,
    /// Sparse attention budget, block size x number of blocks, such as 16x4. Default: that of the
    /// checkpoint.
    #[arg(long, value_name = "BUDGET", conflicts_with_all = ["block_size", "block_counts"])]
    pub(crate) budget: Option<SparseBudget>,
    /// Only the block size of --budget.
    #[arg(long, hide = true, value_name = "N", value_parser = parse_positive)]
    pub(crate) block_size: Option<usize>,
    /// Only the number of blocks of --budget.
    #[arg(long, hide = true, value_name = "N", value_parser = parse_positive)]
    pub(crate) block_counts: Option<usize>,
    /// Also compute the losses of a training step with this stream.
    #[arg(long, value_name = "MODE", value_parser = named::<AttentionMode>())]
    pub(crate) train_stream: Option<AttentionMode>,
    /// Also write the gradients of that loss.
    #[arg(long, requires = "train_stream")]
    pub(crate) grads: bool,
    /// Weight of the alignment loss (method ssa) [default: 10].
    #[arg(long, value_name = "X", requires = "train_stream", allow_negative_numbers = true)]
    #[arg(value_parser = parse_alpha)]
    pub(crate) alpha: Option<f32>,
    /// Safetensors file to write.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Replace --output if it exists.
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

fn parse_alpha(text: &str) -> Result<f32, String> {
    let alpha = text.parse().ok().filter(|alpha: &f32| alpha.is_finite() && *alpha >= 0.0);
    alpha.ok_or_else(|| "expected a non-negative number".to_owned())
}
