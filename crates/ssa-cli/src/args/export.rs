//! `ssa export`.

use std::path::PathBuf;

use clap::Args;

use super::named;

/// Write a model as a directory that other programs can load.
///
/// As `ssa`, the directory has the model in Python, so transformers loads it with
/// `AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True)` and runs it on full or
/// sparse attention. As `llama`, it is a plain Llama checkpoint for programs that know no gates
/// (Qwen2 if it has biases, Qwen3 if it normalizes heads): only a model whose gate weights are all
/// zero can become one, and it then computes the same function under full attention.
///
/// A model without gates is a plain model in either layout; `ssa convert` gives it gates.
///
/// Weights are written as F32. Tokenizer files and generation_config.json come along.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa export --model runs/demo --to exported --as ssa
  ssa export --model retrofit --to plain --as llama")]
pub(crate) struct ExportArgs {
    /// Checkpoint directory in Hugging Face layout (config.json, safetensors weights); that of a
    /// run: then its trained model, or its last checkpoint if it is not finished; or a model of
    /// the Hugging Face Hub, OWNER/NAME[@REVISION].
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: PathBuf,
    /// Directory to write; it must not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Layout of the directory.
    #[arg(long = "as", value_name = "LAYOUT", value_parser = named::<ExportLayout>())]
    pub(crate) layout: ExportLayout,
}

/// What an exported directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExportLayout {
    /// An SSA model with its Python files.
    Ssa,
    /// A plain Llama model.
    Llama,
}

ssa_names::names!(ExportLayout: "export layout" { Ssa = "ssa", Llama = "llama" });
