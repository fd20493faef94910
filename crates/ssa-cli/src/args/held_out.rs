//! What `eval perplexity` and `analyze` share: a checkpoint, and text that it was not trained on.

use std::path::PathBuf;

use clap::Args;
use ssa_kernels::ops::attention::selection::SelectionRule;

use super::{LONGEST_ROW, parse_positive, parse_size};

#[derive(Debug, Args)]
pub(crate) struct HeldOutArgs {
    /// Checkpoint directory in Hugging Face layout (config.json, model.safetensors), or the
    /// directory of a run: then its trained model, or its last checkpoint if it is not finished.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Text to measure on, files or directories, or corpora made by `ssa data prepare`. Without it
    /// the text held out by the run that the checkpoint belongs to, as its config.toml says;
    /// without such a run, the held-out part of the built-in text by the default seed and share.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Tokens of a row; without it as in the run, else the model's longest document, at most 1024.
    #[arg(long, value_name = "N", value_parser = |text: &str| parse_size(text, 2, LONGEST_ROW))]
    pub(crate) sequence_length: Option<usize>,
    /// Rows computed together. Results do not depend on it.
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_positive)]
    pub(crate) batch_size: usize,
    /// Rule that selects blocks: exact top-k, or the approximation of the released kernel.
    #[arg(long, value_enum, default_value_t = Selection::Exact)]
    pub(crate) selection: Selection,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// [`SelectionRule`] as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Selection {
    /// The blocks of the largest importance.
    Exact,
    /// The approximation of the released kernel, for parity with published checkpoints.
    Reference,
}

impl From<Selection> for SelectionRule {
    fn from(selection: Selection) -> Self {
        match selection {
            Selection::Exact => Self::Exact,
            Selection::Reference => Self::Reference,
        }
    }
}
