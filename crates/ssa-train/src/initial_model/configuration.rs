//! Settings that follow from the model that training starts from.

use std::path::Path;

use ssa_data::TOKENIZER_JSON;
use ssa_model::ModelConfig;
use ssa_model::checkpoint::CONFIG;
use toml::Table;

use crate::Result;
use crate::config::{ModelSection, RopeScalingSection, TrainConfig};
use crate::model_source::ModelSource;

impl TrainConfig {
    /// [`load`](Self::load) for a new run. With `model.init_from`, the tokenizer and the keys of
    /// `[model]` are those of that model unless the file or an override sets them. The result has
    /// all values, so that it can be read without the model.
    ///
    /// # Errors
    /// As [`load`](Self::load); as [`ModelSource::find`], and if the `config.json` of the model
    /// cannot be read.
    pub fn load_new(path: &Path, overrides: &[String]) -> Result<Self> {
        let (mut config, given) = Self::load_with_keys(path, overrides)?;
        let Some(name) = &config.model.init_from else { return Ok(config) };
        let directory = ModelSource::find(name)?.directory;
        let checkpoint = ModelConfig::read(&directory.join(CONFIG))?;
        let none = Table::new();
        let section = |name: &str| given.get(name).and_then(|it| it.as_table()).unwrap_or(&none);
        if !section("data").contains_key("tokenizer") && directory.join(TOKENIZER_JSON).is_file() {
            // For a model of the Hub, its name and not the path in the cache.
            config.data.tokenizer = Some(if name.exists() { directory } else { name.clone() });
        }
        fill(&mut config.model, &checkpoint, section("model"), config.data.sequence_length);
        Ok(config)
    }
}

/// Sets the keys that are not given to the values of a checkpoint.
macro_rules! take {
    ($section:ident, $checkpoint:ident, $given:ident: $($key:ident),+) => {
        $(if !$given.contains_key(stringify!($key)) {
            $section.$key = $checkpoint.$key;
        })+
    };
}

fn fill(
    section: &mut ModelSection,
    checkpoint: &ModelConfig,
    given: &Table,
    sequence_length: usize,
) {
    take!(section, checkpoint, given: hidden_size, intermediate_size,
        num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, rope_theta,
        rms_norm_eps, initializer_range, tie_word_embeddings, gated, qkv_bias, qk_norm);
    if !given.contains_key("vocab_size") {
        section.vocab_size = Some(checkpoint.vocab_size);
    }
    if !given.contains_key("max_position_embeddings") {
        let positions = checkpoint.max_position_embeddings.max(sequence_length);
        section.max_position_embeddings = Some(positions);
    }
    if !given.contains_key("rope_scaling") {
        section.rope_scaling = RopeScalingSection::of(&checkpoint.rope_scaling);
    }
    // A model without gates was trained at no budget.
    if !given.contains_key("block_size") && checkpoint.gated {
        section.block_size = checkpoint.budget.block_size();
    }
    if !given.contains_key("block_counts") && checkpoint.gated {
        section.block_counts = checkpoint.budget.block_counts();
    }
    if !given.contains_key("window_size") && checkpoint.window_size > 0 {
        section.window_size = checkpoint.window_size;
    }
}
