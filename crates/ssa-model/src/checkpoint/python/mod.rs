//! The model in Python: with these two files in its directory, transformers loads a checkpoint
//! without this program.
//!
//! They implement full and sparse attention, both selection rules and generation with a cache in
//! plain PyTorch. `tests/python/transformers` compares them with this crate and with the released
//! code.

use std::path::Path;

use serde_json::{Value, json};

use crate::Result;

pub(super) const CONFIGURATION: &str = "configuration_ssa.py";
pub(super) const MODELING: &str = "modeling_ssa.py";

/// Writes the files into a directory.
pub(super) fn write(dir: &Path) -> Result<()> {
    ssa_files::write(&dir.join(CONFIGURATION), include_str!("configuration_ssa.py"))?;
    Ok(ssa_files::write(&dir.join(MODELING), include_str!("modeling_ssa.py"))?)
}

/// The entry `auto_map` of `config.json`, by which transformers finds the classes. Serving engines
/// build the base model, `AutoModel`.
pub(super) fn auto_map() -> Value {
    json!({
        "AutoConfig": "configuration_ssa.SSAConfig",
        "AutoModel": "modeling_ssa.SSAModel",
        "AutoModelForCausalLM": "modeling_ssa.SSAForCausalLM",
    })
}
