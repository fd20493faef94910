//! Small models for tests. All their sizes differ, so mixing up two of them fails a test.

use crate::{Method, ModelConfig, ModelSettings, RopeScaling, SparseBudget};

pub(crate) fn small_settings() -> ModelSettings {
    ModelSettings {
        vocab_size: 97,
        hidden_size: 20,
        intermediate_size: 28,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 8,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: 512,
        initializer_range: 0.02,
        tie_word_embeddings: true,
        gated: true,
        qkv_bias: false,
        qk_norm: false,
        budget: SparseBudget::new(4, 3).unwrap(),
        window_size: 0,
        attention_method: Method::SSA,
        bos_token_id: None,
        eos_token_id: vec![96],
    }
}

pub(crate) fn small_config() -> ModelConfig {
    ModelConfig::new(small_settings()).unwrap()
}
