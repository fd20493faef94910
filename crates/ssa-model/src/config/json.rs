//! Reading and writing `config.json`.

use std::path::Path;

use serde_json::{Map, Value, json};
use ssa_names::UnknownName;

use super::keys::Keys;
use super::{ModelConfig, ModelSettings, RopeScaling, rope_scaling};
use crate::{Method, ModelError, Result, SparseBudget};

const MODEL_TYPE: &str = "llama-nsa";

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// Unknown keys are ignored: Hugging Face writes many that do not concern the model. A missing
    /// key has the default of the released configuration class (`head_dim`: hidden size / heads);
    /// sizes and block sizes have none and must be there. `torch_dtype` is ignored: weights are
    /// always held as `f32`.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Json`], or [`ModelError::Config`] with the file, key and
    /// value.
    pub fn read(path: &Path) -> Result<Self> {
        let text = ssa_files::read_to_string(path).map_err(ModelError::io("read", path))?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|reason| ModelError::Json { path: path.to_owned(), reason })?;
        let origin = path.display().to_string();
        match &json {
            Value::Object(map) => Self::from_json(&origin, map),
            _ => Err(ModelError::config(
                &origin,
                "config.json",
                "not an object",
                "an object of keys",
            )),
        }
    }

    /// Reads the keys of a `config.json` that came from `origin`, which errors name. As
    /// [`ModelConfig::read`].
    ///
    /// # Errors
    /// [`ModelError::Config`].
    pub fn from_json(origin: &str, map: &Map<String, Value>) -> Result<Self> {
        let keys = Keys::new(origin, map);
        check_fixed_keys(&keys)?;
        Self::checked(settings(&keys)?, origin)
    }

    /// The keys of a `config.json` that the released code and this crate read back to the same
    /// model.
    pub fn to_json(&self) -> Value {
        let eos_token_id = match self.eos_token_id.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        json!({
            "architectures": ["LlamaNSAForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "attention_method": self.attention_method,
            "block_counts": self.budget.block_counts(),
            "block_size": self.budget.block_size(),
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "model_type": MODEL_TYPE,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": rope_scaling::to_json(&self.rope_scaling),
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "vocab_size": self.vocab_size,
            "window_size": self.window_size,
        })
    }
}

/// Keys with one legal value: they name variants of Llama that this crate does not implement.
fn check_fixed_keys(keys: &Keys<'_>) -> Result<()> {
    match keys.required("model_type", Keys::text)? {
        MODEL_TYPE => {}
        "llama" => {
            let expected = "\"llama-nsa\": a plain Llama checkpoint has no gates (self_attn.g_proj), \
                            so it is not an SSA checkpoint";
            return Err(keys.error("model_type", expected));
        }
        _ => {
            return Err(
                keys.error("model_type", "\"llama-nsa\", the only architecture implemented")
            );
        }
    }
    for key in ["attention_bias", "mlp_bias"] {
        if keys.flag(key)? == Some(true) {
            return Err(keys.error(key, "false: biases are not implemented"));
        }
    }
    match keys.text("hidden_act")? {
        // transformers knows the same function under both names.
        None | Some("silu" | "swish") => Ok(()),
        Some(_) => Err(keys.error("hidden_act", "\"silu\" or \"swish\"")),
    }
}

fn settings(keys: &Keys<'_>) -> Result<ModelSettings> {
    let hidden_size = keys.required("hidden_size", Keys::size)?;
    let num_attention_heads = keys.required("num_attention_heads", Keys::size)?;
    let head_dim = match keys.size("head_dim")? {
        Some(head_dim) => head_dim,
        None => hidden_size.checked_div(num_attention_heads).unwrap_or(0),
    };
    // transformers 5 keeps theta and scaling together under `rope_parameters`, and still prefers
    // `rope_scaling`.
    let rope = match keys.object("rope_scaling")? {
        Some(rope) => Some(rope),
        None => keys.object("rope_parameters")?,
    };
    let inner_theta = rope.as_ref().map_or(Ok(None), |rope| rope.number("rope_theta"))?;
    let attention_method = match keys.text("attention_method")? {
        None => Method::default(),
        Some(name) => name.parse().map_err(|unknown: UnknownName| {
            let expected = format!("one of {}", unknown.expected.join(", "));
            keys.error("attention_method", &expected)
        })?,
    };
    Ok(ModelSettings {
        vocab_size: keys.required("vocab_size", Keys::size)?,
        hidden_size,
        intermediate_size: keys.required("intermediate_size", Keys::size)?,
        num_hidden_layers: keys.required("num_hidden_layers", Keys::size)?,
        num_attention_heads,
        num_key_value_heads: keys.size("num_key_value_heads")?.unwrap_or(num_attention_heads),
        head_dim,
        rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta: inner_theta.or(keys.number("rope_theta")?).unwrap_or(10_000.0),
        rope_scaling: rope.map_or(Ok(RopeScaling::None), |rope| rope_scaling::from_json(&rope))?,
        max_position_embeddings: keys.size("max_position_embeddings")?.unwrap_or(2048),
        initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
        tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        budget: budget(keys)?,
        window_size: keys.size("window_size")?.unwrap_or(0),
        attention_method,
        bos_token_id: keys.token("bos_token_id")?,
        eos_token_id: keys.tokens("eos_token_id")?,
    })
}

fn budget(keys: &Keys<'_>) -> Result<SparseBudget> {
    let block_size = keys.required("block_size", Keys::size)?;
    let block_counts = keys.required("block_counts", Keys::size)?;
    SparseBudget::new(block_size, block_counts).map_err(|_| match (block_size, block_counts) {
        (0, _) => keys.error("block_size", "at least 1"),
        (_, 0) => keys.error("block_counts", "at least 1"),
        _ => keys.error("block_counts", "a number whose product with block_size fits in 64 bits"),
    })
}
