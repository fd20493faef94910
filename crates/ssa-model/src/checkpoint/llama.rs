//! Models as plain Llama checkpoints, for programs that know no gates.
//!
//! A gate whose weights are zero is the constant sigmoid(0) = 1/2 and can move into the output
//! projection: `o_proj (h / 2) = (o_proj / 2) h`. Halving is exact, so the plain model computes the
//! same function under full attention.

use std::path::Path;

use serde_json::{Value, json};

use super::{write_config, write_weights};
use crate::parameters::G_PROJ;
use crate::{AttentionMode, ModelConfig, ModelError, Parameters, Result};

/// The value of a gate whose weights are zero.
const NEUTRAL_GATE: f32 = 0.5;

/// Keys of `config.json` that Llama does not have.
const SPARSE_KEYS: [&str; 4] = ["attention_method", "block_counts", "block_size", "window_size"];

/// Writes a model as a plain Llama checkpoint: `config.json` and `model.safetensors` (`f32`). The
/// directory is created if it does not exist; each file is replaced as a whole, the configuration
/// last.
///
/// # Errors
/// [`ModelError::NotLlama`] if the method has no full attention, or with the first tensor of gate
/// weights that are not zero; otherwise as [`save`](super::save).
pub fn save_llama(dir: &Path, config: &ModelConfig, mut parameters: Parameters) -> Result<()> {
    parameters.check(config)?;
    check(config, &parameters)?;
    for layer in &mut parameters.layers {
        for weight in layer.o_proj.as_mut_slice()? {
            *weight *= NEUTRAL_GATE;
        }
    }
    let mut tensors = parameters.named();
    tensors.retain(|(name, _)| !name.ends_with(G_PROJ));
    ssa_files::create_directories(dir)?;
    write_weights(dir, &tensors)?;
    write_config(dir, &llama_config(config))
}

/// Refuses a model that computes something that Llama cannot.
fn check(config: &ModelConfig, parameters: &Parameters) -> Result<()> {
    let method = config.attention_method;
    if !method.has_mode(AttentionMode::Full) {
        let problem = format!("method {method} has no full attention");
        return Err(ModelError::NotLlama { problem });
    }
    for (name, tensor) in parameters.named() {
        if name.ends_with(G_PROJ) && tensor.as_slice()?.iter().any(|&weight| weight != 0.0) {
            let problem = format!("tensor `{name}` is not zero, so its gates vary with the input");
            return Err(ModelError::NotLlama { problem });
        }
    }
    Ok(())
}

fn llama_config(config: &ModelConfig) -> Value {
    let mut json = config.to_json();
    json["architectures"] = json!(["LlamaForCausalLM"]);
    json["model_type"] = json!("llama");
    if let Some(keys) = json.as_object_mut() {
        keys.retain(|key, _| !SPARSE_KEYS.contains(&key.as_str()));
    }
    json
}
