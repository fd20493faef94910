//! The configuration of a model and its checks.

mod family;
mod json;
mod keys;
mod rope_scaling;
#[cfg(test)]
mod tests;

use std::ops::Deref;

use ssa_kernels::ops::attention::selection::{SelectionOptions, SelectionRule};
pub use ssa_kernels::ops::rope::{RopeScaling, Yarn};
use ssa_names::UnknownName;

use family::Family;

use crate::method::{AttentionSizes, Method};
use crate::options::{AttentionOptions, DocumentMasking};
use crate::{AttentionMode, ModelError, Result, SparseBudget};

/// The values of a configuration, under the names of Hugging Face's `config.json`.
///
/// Plain, unchecked data: [`ModelConfig::new`] checks it. Keys of `config.json` with one supported
/// value (`model_type`, `hidden_act`, `attention_bias`, `mlp_bias`) are checked on reading and
/// written back, and have no field here.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// V, the vocabulary size, at most 2^24.
    pub vocab_size: usize,
    /// Width of the residual stream, at most 2^20.
    pub hidden_size: usize,
    /// F, width of the feed-forward layer, at most 2^20.
    pub intermediate_size: usize,
    /// Number of decoder blocks, at most 2^12.
    pub num_hidden_layers: usize,
    /// HQ, query heads, at most 2^12.
    pub num_attention_heads: usize,
    /// H, key/value heads; divides HQ.
    pub num_key_value_heads: usize,
    /// D, size of a head, at most 2^12; even, because RoPE rotates pairs.
    pub head_dim: usize,
    /// Added to the mean square before the square root.
    pub rms_norm_eps: f64,
    /// Base of the RoPE frequencies.
    pub rope_theta: f64,
    /// Scaling of the RoPE frequencies for contexts longer than those in training.
    pub rope_scaling: RopeScaling,
    /// The longest document the model is meant for, at most 2^31 tokens.
    pub max_position_embeddings: usize,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Whether the output layer shares the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Whether attention outputs are multiplied by gates. Models that were trained without sparse
    /// attention have none: plain Llama, Mistral and Qwen.
    pub gated: bool,
    /// Whether q, k and v have biases, as in Qwen2.
    pub qkv_bias: bool,
    /// Whether the heads of q and k are normalized before RoPE, as in Qwen3.
    pub qk_norm: bool,
    /// Sparse attention budget in training: `block_size` and `block_counts`.
    pub budget: SparseBudget,
    /// Tokens of the sliding window; 0 for methods that have none.
    pub window_size: usize,
    /// The attention method of the model. A key of this project; `ssa` if missing.
    pub attention_method: Method,
    /// Token that begins a document. Like `eos_token_id`, it may be outside the vocabulary: the
    /// model does not use it.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a document: none, one, or several (chat models).
    pub eos_token_id: Vec<u32>,
}

impl ModelSettings {
    /// The 1B model of the paper: 1.214 B parameters, block 16 x top-16.
    pub fn ssa_1b() -> Self {
        Self {
            vocab_size: 128_256,
            hidden_size: 2048,
            intermediate_size: 8192,
            num_hidden_layers: 16,
            num_attention_heads: 32,
            num_key_value_heads: 2,
            head_dim: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 500_000.0,
            rope_scaling: RopeScaling::None,
            max_position_embeddings: 131_072,
            initializer_range: 0.02,
            tie_word_embeddings: true,
            gated: true,
            qkv_bias: false,
            qk_norm: false,
            budget: SparseBudget::PAPER,
            window_size: 0,
            attention_method: Method::SSA,
            bos_token_id: Some(128_000),
            eos_token_id: vec![128_001],
        }
    }

    /// The 300M model of the paper's ablations.
    pub fn ssa_300m() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_attention_heads: 16,
            num_key_value_heads: 1,
            ..Self::ssa_1b()
        }
    }

    /// The settings of a published size, by name.
    ///
    /// # Errors
    /// [`ModelError::UnknownName`] unless the name is `ssa-1b` or `ssa-300m`.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "ssa-1b" => Ok(Self::ssa_1b()),
            "ssa-300m" => Ok(Self::ssa_300m()),
            _ => Err(ModelError::UnknownName(UnknownName {
                kind: "model preset",
                given: name.to_owned(),
                expected: vec!["ssa-1b", "ssa-300m"],
            })),
        }
    }
}

/// A checked configuration: code that reads it needs no further checks.
///
/// It reads like the [`ModelSettings`] inside it (`config.hidden_size`) and cannot be changed. To
/// vary it, change a copy of the settings and check the copy: `ModelConfig::new(ModelSettings {
/// tie_word_embeddings: true, ..config.settings() })?`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig(ModelSettings);

impl Deref for ModelConfig {
    type Target = ModelSettings;

    fn deref(&self) -> &ModelSettings {
        &self.0
    }
}

impl ModelConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the first key with an invalid value.
    pub fn new(settings: ModelSettings) -> Result<Self> {
        Self::checked(settings, "model configuration")
    }

    /// Returns a copy of the values, to change and check again.
    pub fn settings(&self) -> ModelSettings {
        self.0.clone()
    }

    /// Scale of the attention scores, `head_dim^-0.5`.
    pub fn softmax_scale(&self) -> f32 {
        (self.head_dim as f64).sqrt().recip() as f32
    }

    /// The attention options of training, in this mode and with exact selection.
    pub fn attention_options(&self, mode: AttentionMode) -> AttentionOptions {
        AttentionOptions {
            method: self.attention_method,
            mode,
            selection: SelectionOptions { budget: self.budget, rule: SelectionRule::Exact },
            window_size: self.window_size,
            document_masking: DocumentMasking::Both,
        }
    }

    /// The sizes of the model's attentions.
    pub fn attention_sizes(&self) -> AttentionSizes {
        AttentionSizes {
            q_heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            budget: self.budget,
            window_size: self.window_size,
        }
    }

    /// Checks settings read from `origin`. Errors name `origin`.
    fn checked(settings: ModelSettings, origin: &str) -> Result<Self> {
        check_sizes(&settings, origin)?;
        check_numbers(&settings, origin)?;
        rope_scaling::check(&settings.rope_scaling, settings.rope_theta, origin)?;
        check_family(&settings, origin)?;
        let method = settings.attention_method;
        if method.uses_window() && settings.window_size == 0 {
            let expected =
                format!("at least 1 for the attention method {method} (the paper uses 128)");
            return Err(ModelError::config(origin, "window_size", 0, expected));
        }
        Ok(Self(settings))
    }
}

/// Upper bounds of the sizes, far above any real model. They keep the number of parameters and the
/// bytes of weights, moments and every tensor below 2^63.
const LARGEST_VOCABULARY: usize = 1 << 24;
const LARGEST_WIDTH: usize = 1 << 20;
const MOST_LAYERS: usize = 1 << 12;
const MOST_HEADS: usize = 1 << 12;
const LARGEST_HEAD: usize = 1 << 12;
const MOST_POSITIONS: usize = 1 << 31;

/// Weights with a larger standard deviation overflow in the first layer.
const LARGEST_DEVIATION: f64 = 1e6;

fn at_most(largest: usize, key: &str, size: usize, origin: &str) -> Result<()> {
    if size <= largest {
        return Ok(());
    }
    Err(ModelError::config(origin, key, size, format!("at most {largest}")))
}

fn check_sizes(settings: &ModelSettings, origin: &str) -> Result<()> {
    let sizes = [
        ("vocab_size", settings.vocab_size, LARGEST_VOCABULARY),
        ("hidden_size", settings.hidden_size, LARGEST_WIDTH),
        ("intermediate_size", settings.intermediate_size, LARGEST_WIDTH),
        ("num_hidden_layers", settings.num_hidden_layers, MOST_LAYERS),
        ("num_attention_heads", settings.num_attention_heads, MOST_HEADS),
        ("num_key_value_heads", settings.num_key_value_heads, MOST_HEADS),
        ("head_dim", settings.head_dim, LARGEST_HEAD),
        ("max_position_embeddings", settings.max_position_embeddings, MOST_POSITIONS),
        ("block_size", settings.budget.block_size(), SparseBudget::LARGEST_PART),
        ("block_counts", settings.budget.block_counts(), SparseBudget::LARGEST_PART),
    ];
    for (key, size, largest) in sizes {
        if size == 0 {
            return Err(ModelError::config(origin, key, size, "at least 1"));
        }
        at_most(largest, key, size, origin)?;
    }
    at_most(MOST_POSITIONS, "window_size", settings.window_size, origin)?;
    let [heads, kv_heads] = [settings.num_attention_heads, settings.num_key_value_heads];
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a multiple of num_key_value_heads ({kv_heads})");
        return Err(ModelError::config(origin, "num_attention_heads", heads, expected));
    }
    if !settings.head_dim.is_multiple_of(2) {
        let expected = "an even number (RoPE rotates pairs)";
        return Err(ModelError::config(origin, "head_dim", settings.head_dim, expected));
    }
    Ok(())
}

/// Without gates a model is one of the plain families, and runs one attention at a time.
fn check_family(settings: &ModelSettings, origin: &str) -> Result<()> {
    if Family::of(settings).is_none() {
        let expected = "false for a model without gates that normalizes its queries and keys";
        return Err(ModelError::config(origin, "qkv_bias", settings.qkv_bias, expected));
    }
    let method = settings.attention_method;
    if settings.gated || !method.needs_gates() {
        return Ok(());
    }
    let expected = "full or moba for a model without gates (self_attn.g_proj)\n\
                    hint: add gates with `ssa convert`";
    Err(ModelError::config(origin, "attention_method", method, expected))
}

fn check_numbers(settings: &ModelSettings, origin: &str) -> Result<()> {
    for (key, number) in
        [("rms_norm_eps", settings.rms_norm_eps), ("rope_theta", settings.rope_theta)]
    {
        if !(number.is_finite() && number > 0.0) {
            return Err(ModelError::config(origin, key, number, "a positive number"));
        }
    }
    let range = settings.initializer_range;
    if !(0.0..=LARGEST_DEVIATION).contains(&range) {
        let expected = format!("a number from 0 to {LARGEST_DEVIATION}");
        return Err(ModelError::config(origin, "initializer_range", range, expected));
    }
    Ok(())
}
