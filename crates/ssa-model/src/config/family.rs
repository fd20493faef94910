//! The supported architectures, as data.

use super::ModelSettings;
use super::keys::Keys;
use crate::Result;

/// An architecture: its differences from Llama, and the defaults of its configuration class.
#[derive(Debug)]
pub(super) struct Family {
    /// `model_type` in `config.json`.
    pub(super) model_type: &'static str,
    /// The class in `architectures`.
    pub(super) architecture: &'static str,
    /// Whether attention outputs are multiplied by gates (`self_attn.g_proj`).
    pub(super) gated: bool,
    /// Whether q, k and v have biases.
    pub(super) qkv_bias: bool,
    /// Whether the heads of q and k are normalized before RoPE.
    pub(super) qk_norm: bool,
    /// Default of `use_sliding_window`.
    sliding_window: bool,
    /// Number of key/value heads; `None`: as many as query heads.
    pub(super) num_key_value_heads: Option<usize>,
    /// Size of a head; `None`: hidden size / heads.
    pub(super) head_dim: Option<usize>,
    /// Length of the longest document.
    pub(super) max_position_embeddings: usize,
}

/// Llama without gates, the base of all families.
const LLAMA: Family = Family {
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    gated: false,
    qkv_bias: false,
    qk_norm: false,
    sliding_window: false,
    num_key_value_heads: None,
    head_dim: None,
    max_position_embeddings: 2048,
};

/// The families, with the defaults of transformers. Of families with the same architecture, models
/// are written as the first.
static FAMILIES: [Family; 5] = [
    Family { model_type: "llama-nsa", architecture: "LlamaNSAForCausalLM", gated: true, ..LLAMA },
    LLAMA,
    Family {
        model_type: "mistral",
        architecture: "MistralForCausalLM",
        sliding_window: true,
        num_key_value_heads: Some(8),
        max_position_embeddings: 131_072,
        ..LLAMA
    },
    Family {
        model_type: "qwen2",
        architecture: "Qwen2ForCausalLM",
        qkv_bias: true,
        num_key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        architecture: "Qwen3ForCausalLM",
        qk_norm: true,
        num_key_value_heads: Some(32),
        head_dim: Some(128),
        max_position_embeddings: 32_768,
        ..LLAMA
    },
];

/// Default of `sliding_window` in the configuration classes that have it.
const DEFAULT_WINDOW: usize = 4096;

/// Flags that must be false.
const REFUSED_FLAGS: [(&str, &str); 2] = [
    ("attention_bias", "false: biases of the output projection are not implemented"),
    ("mlp_bias", "false: biases of the feed-forward layer are not implemented"),
];

/// Keys that must be absent.
const REFUSED_KEYS: [(&str, &str); 3] = [
    ("quantization_config", "no value: quantized weights are not implemented"),
    ("num_experts", "no value: mixtures of experts are not implemented"),
    ("num_local_experts", "no value: mixtures of experts are not implemented"),
];

impl Family {
    /// Reads `model_type`.
    pub(super) fn read(keys: &Keys<'_>) -> Result<&'static Self> {
        let name = keys.required("model_type", Keys::text)?;
        FAMILIES.iter().find(|family| family.model_type == name).ok_or_else(|| {
            let known = FAMILIES.iter().map(|family| format!("\"{}\"", family.model_type));
            let known = known.collect::<Vec<_>>().join(", ");
            keys.error("model_type", &format!("one of {known}"))
        })
    }

    /// The family that a model is written as; `None` if no plain family has its biases and norms.
    /// With gates, keys of this project say which biases and norms there are.
    pub(super) fn of(settings: &ModelSettings) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| match settings.gated {
            true => family.gated,
            false => {
                !family.gated
                    && family.qkv_bias == settings.qkv_bias
                    && family.qk_norm == settings.qk_norm
            }
        })
    }

    /// Refuses variants that are not implemented.
    pub(super) fn check(&self, keys: &Keys<'_>, max_position_embeddings: usize) -> Result<()> {
        for (key, expected) in REFUSED_FLAGS {
            if keys.flag(key)? == Some(true) {
                return Err(keys.error(key, expected));
            }
        }
        for (key, expected) in REFUSED_KEYS {
            if keys.has(key) {
                return Err(keys.error(key, expected));
            }
        }
        if keys.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(keys.error("partial_rotary_factor", "1: RoPE turns whole heads"));
        }
        // Both names mean the same function in transformers.
        if !matches!(keys.text("hidden_act")?, None | Some("silu" | "swish")) {
            return Err(keys.error("hidden_act", "\"silu\" or \"swish\""));
        }
        if keys.texts("layer_types")?.iter().any(|kind| *kind != "full_attention") {
            let expected = "\"full_attention\" for every layer; no other kind is implemented";
            return Err(keys.error("layer_types", expected));
        }
        self.check_window(keys, max_position_embeddings)
    }

    /// A sliding window has no effect if no document is longer.
    fn check_window(&self, keys: &Keys<'_>, max_position_embeddings: usize) -> Result<()> {
        if !keys.flag("use_sliding_window")?.unwrap_or(self.sliding_window) {
            return Ok(());
        }
        let window = match keys.size("sliding_window")? {
            None if keys.is_null("sliding_window") => return Ok(()),
            window => window.unwrap_or(DEFAULT_WINDOW),
        };
        if window >= max_position_embeddings {
            return Ok(());
        }
        let expected = format!(
            "null, or at least max_position_embeddings ({max_position_embeddings}): sliding \
             windows are not implemented"
        );
        Err(keys.error("sliding_window", &expected))
    }
}
