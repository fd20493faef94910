//! `ssa export`.

use std::path::PathBuf;

use clap::Args;

use super::named;

/// Write a model as a directory that other programs can load.
///
/// As `ssa`, the directory includes the model in Python: transformers loads it with
/// `AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True)` and runs it on full or
/// sparse attention. As `llama`, it is a plain Llama checkpoint without gates (Qwen2 if the model
/// has biases, Qwen3 if it normalizes heads). That requires gate weights that are all zero; the
/// plain model computes the same function under full attention.
///
/// A model without gates is a plain model in either layout; `ssa convert` gives it gates.
///
/// Writes weights as F32, and copies tokenizer files and generation_config.json.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa export --model runs/demo --to exported --as ssa
  ssa export --model retrofit --to plain --as llama")]
pub(crate) struct ExportArgs {
    /// Checkpoint directory in Hugging Face layout (config.json, safetensors weights); a run
    /// directory: then its trained model, or its last checkpoint if it is not finished; or a model
    /// of the Hugging Face Hub, `OWNER/NAME[@REVISION]`.
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
