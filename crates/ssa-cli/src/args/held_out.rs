//! What `eval perplexity` and `analyze` share: a checkpoint and text that it was not trained on.

use std::path::PathBuf;

use clap::Args;
use ssa_kernels::ops::attention::selection::SelectionRule;

use super::{named, parse_positive, parse_size};

#[derive(Debug, Args)]
pub(crate) struct HeldOutArgs {
    /// Checkpoint directory in Hugging Face layout (config.json, model.safetensors).
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Text to measure on, files or directories, or corpora made by `ssa data prepare`. Without it
    /// the text held out by the run that the checkpoint belongs to, as its config.toml says;
    /// without such a run, the held-out part of the built-in corpus by the default seed and share.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Tokens of a row; without it as in the run, else the model's longest document, at most 1024.
    #[arg(long, value_name = "N", value_parser = |text: &str| parse_size(text, 2))]
    pub(crate) sequence_length: Option<usize>,
    /// Rows computed at once. Results do not depend on it.
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_positive)]
    pub(crate) batch_size: usize,
    /// Rule that selects blocks: exact top-k, or the approximation of the released kernel, for
    /// parity with published checkpoints.
    #[arg(long, value_name = "RULE", default_value_t = SelectionRule::Exact, value_parser = named::<SelectionRule>())]
    pub(crate) selection: SelectionRule,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}
