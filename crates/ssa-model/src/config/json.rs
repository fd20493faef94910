//! Reading and writing `config.json`.

use std::path::Path;

use serde_json::{Map, Value, json};
use ssa_names::UnknownName;

use super::family::Family;
use super::keys::Keys;
use super::{ModelConfig, ModelSettings, rope_scaling};
use crate::{Method, ModelError, Result, SparseBudget};

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// Unknown keys are ignored: Hugging Face writes many that do not affect the model. A missing
    /// key gets the default of the configuration class of its `model_type` (`head_dim`: mostly
    /// hidden size / heads). Sizes are required, and so are the block sizes of a model with gates;
    /// a plain model gets those of the paper. `dtype` is ignored: weights are always held as `f32`.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Json`], or [`ModelError::Config`], which names the file,
    /// key and value.
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

    /// Reads the keys of a `config.json` like [`ModelConfig::read`]. Errors name `origin` as the
    /// source.
    ///
    /// # Errors
    /// [`ModelError::Config`].
    pub fn from_json(origin: &str, map: &Map<String, Value>) -> Result<Self> {
        let keys = Keys::new(origin, map);
        let family = Family::read(&keys)?;
        let settings = settings(&keys, family)?;
        family.check(&keys, settings.max_position_embeddings)?;
        if let (Some(old), Some(new)) = (keys.text("torch_dtype")?, keys.text("dtype")?)
            && old != new
        {
            return Err(keys.error("torch_dtype", &format!("\"{new}\", as under dtype")));
        }
        Self::checked(settings, origin)
    }

    /// Converts to the keys of a `config.json`. The released code and this crate read them back as
    /// the same model. RoPE and the dtype are written with the keys of transformers 4 and 5.
    pub fn to_json(&self) -> Value {
        let eos_token_id = match self.eos_token_id.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        let family = Family::of(self);
        let mut json = json!({
            "architectures": family.map(|family| [family.architecture]),
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "dtype": "float32",
            "eos_token_id": eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "model_type": family.map(|family| family.model_type),
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope_scaling::parameters(&self.rope_scaling, self.rope_theta),
            "rope_scaling": rope_scaling::to_json(&self.rope_scaling),
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "vocab_size": self.vocab_size,
        });
        let own_keys = [
            ("attention_method", json!(self.attention_method), json!(Method::of_model(false))),
            ("block_counts", json!(self.budget.block_counts()), json!(PLAIN_BUDGET.block_counts())),
            ("block_size", json!(self.budget.block_size()), json!(PLAIN_BUDGET.block_size())),
            ("window_size", json!(self.window_size), json!(0)),
        ];
        for (key, value, plain) in own_keys {
            if self.gated || value != plain {
                json[key] = value;
            }
        }
        // Keys that the released code does not know: only where they matter.
        for (key, value) in [(QKV_BIAS, self.qkv_bias), (QK_NORM, self.qk_norm)] {
            if self.gated && value {
                json[key] = json!(true);
            }
        }
        json
    }
}

/// The budget of a model without gates whose file names none.
const PLAIN_BUDGET: SparseBudget = SparseBudget::PAPER;
/// Biases on q, k and v of a model with gates.
const QKV_BIAS: &str = "qkv_bias";
/// Norms of the heads of q and k of a model with gates.
const QK_NORM: &str = "qk_norm";

fn settings(keys: &Keys<'_>, family: &Family) -> Result<ModelSettings> {
    let hidden_size = keys.required("hidden_size", Keys::size)?;
    let num_attention_heads = keys.required("num_attention_heads", Keys::size)?;
    let head_dim = match keys.size("head_dim")? {
        Some(head_dim) => head_dim,
        None => family
            .head_dim
            .unwrap_or_else(|| hidden_size.checked_div(num_attention_heads).unwrap_or(0)),
    };
    let (rope_theta, rope_scaling) = rope_scaling::from_json(keys)?;
    let attention_method = match keys.text("attention_method")? {
        None => Method::of_model(family.gated),
        Some(name) => name.parse().map_err(|unknown: UnknownName| {
            let expected = format!("one of {}", unknown.expected.join(", "));
            keys.error("attention_method", &expected)
        })?,
    };
    // Only a model with gates can have what its family lacks.
    let variant = |has: bool, key: &str| -> Result<bool> {
        match family.gated {
            true => Ok(keys.flag(key)?.unwrap_or(has)),
            false => Ok(has),
        }
    };
    Ok(ModelSettings {
        vocab_size: keys.required("vocab_size", Keys::size)?,
        hidden_size,
        intermediate_size: keys.required("intermediate_size", Keys::size)?,
        num_hidden_layers: keys.required("num_hidden_layers", Keys::size)?,
        num_attention_heads,
        num_key_value_heads: keys
            .size("num_key_value_heads")?
            .or(family.num_key_value_heads)
            .unwrap_or(num_attention_heads),
        head_dim,
        rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        max_position_embeddings: keys
            .size("max_position_embeddings")?
            .unwrap_or(family.max_position_embeddings),
        initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
        tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        gated: family.gated,
        qkv_bias: variant(family.qkv_bias, QKV_BIAS)?,
        qk_norm: variant(family.qk_norm, QK_NORM)?,
        budget: budget(keys, family)?,
        window_size: keys.size("window_size")?.unwrap_or(0),
        attention_method,
        bos_token_id: keys.token("bos_token_id")?,
        eos_token_id: keys.tokens("eos_token_id")?,
    })
}

fn budget(keys: &Keys<'_>, family: &Family) -> Result<SparseBudget> {
    let size = |key: &str, default: usize| match family.gated {
        true => keys.required(key, Keys::size),
        false => Ok(keys.size(key)?.unwrap_or(default)),
    };
    let block_size = size("block_size", PLAIN_BUDGET.block_size())?;
    let block_counts = size("block_counts", PLAIN_BUDGET.block_counts())?;
    SparseBudget::new(block_size, block_counts).map_err(|_| match (block_size, block_counts) {
        (0, _) => keys.error("block_size", "at least 1"),
        (_, 0) => keys.error("block_counts", "at least 1"),
        _ => keys.error("block_counts", "a number whose product with block_size fits in 64 bits"),
    })
}
