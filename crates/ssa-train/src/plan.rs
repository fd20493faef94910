//! The checked form of a configuration.

use std::path::PathBuf;

use ssa_data::ByteTokenizer;
use ssa_kernels::ops::attention::alignment::AlignmentOptions;
use ssa_kernels::ops::attention::selection::SelectionOptions;
use ssa_model::{
    AttentionMode, AttentionOptions, Method, ModelConfig, ModelError, ModelSettings, Objective, RopeScaling,
    SparseBudget,
};

use crate::config::{AlignmentInput, ConfigError, TrainConfig};
use crate::optimizer::OptimizerOptions;
use crate::schedule::Schedule;
use crate::stream::StreamDraw;

mod checks;
#[cfg(test)]
mod tests;

/// A configuration that can run: every value is checked, alone and with the others, so the code that uses it checks
/// nothing again.
#[derive(Clone, Debug)]
pub struct TrainPlan {
    config: TrainConfig,
    model: ModelConfig,
    objective: Objective,
    streams: StreamDraw,
    schedule: Schedule,
    optimizer: OptimizerOptions,
}

impl TrainPlan {
    /// Checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the first key whose value cannot work, and what would.
    pub fn new(config: TrainConfig) -> Result<Self, ConfigError> {
        checks::check(&config)?;
        let model = model_config(&config)?;
        let training = &config.training;
        let settings = &config.optimizer;
        let warmup = settings
            .warmup_steps
            .unwrap_or_else(|| (settings.warmup_fraction * training.steps as f64).round() as usize);
        Ok(Self {
            objective: objective(&config, &model),
            streams: StreamDraw::new(
                config.objective.method,
                config.run.seed,
                config.objective.full_ratio,
                config.objective.stream_draw,
            ),
            schedule: Schedule {
                peak: settings.learning_rate,
                minimum: settings.min_learning_rate,
                warmup,
                steps: training.steps,
            },
            optimizer: OptimizerOptions {
                beta1: settings.beta1 as f32,
                beta2: settings.beta2 as f32,
                eps: settings.eps as f32,
                weight_decay: settings.weight_decay as f32,
                max_grad_norm: settings.max_grad_norm,
            },
            model,
            config,
        })
    }

    /// The configuration the plan was made from.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Seed of the run.
    pub fn seed(&self) -> u64 {
        self.config.run.seed
    }

    /// The model to train.
    pub fn model(&self) -> &ModelConfig {
        &self.model
    }

    /// Checkpoint to take the initial weights from, if not random.
    pub fn init_from(&self) -> Option<&PathBuf> {
        self.config.model.init_from.as_ref()
    }

    /// What is minimised.
    pub fn objective(&self) -> &Objective {
        &self.objective
    }

    /// The coin that decides on the stream.
    pub fn streams(&self) -> &StreamDraw {
        &self.streams
    }

    /// The learning rate over the run.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Constants of the optimiser.
    pub fn optimizer(&self) -> &OptimizerOptions {
        &self.optimizer
    }

    /// Optimiser steps of the run.
    pub fn steps(&self) -> usize {
        self.config.training.steps
    }

    /// Rows of an optimiser step.
    pub fn batch_size(&self) -> usize {
        self.config.training.batch_size
    }

    /// Rows of a micro-batch: a divisor of the batch size.
    pub fn micro_batch_size(&self) -> usize {
        self.config.training.micro_batch_size.unwrap_or(self.batch_size())
    }

    /// Micro-batches of an optimiser step.
    pub fn accumulation(&self) -> usize {
        self.batch_size() / self.micro_batch_size()
    }

    /// Tokens of a row.
    pub fn sequence_length(&self) -> usize {
        self.config.data.sequence_length
    }

    /// Budgets of sparse attention to evaluate.
    pub fn budgets(&self) -> &[SparseBudget] {
        &self.config.evaluation.budgets
    }
}

/// The model's own configuration; its checks are those of the model crate, told with the keys of ours.
fn model_config(config: &TrainConfig) -> Result<ModelConfig, ConfigError> {
    let section = &config.model;
    let method = config.objective.method;
    let rope_scaling =
        section.rope_scaling.as_ref().map_or(RopeScaling::None, |scaling| RopeScaling::Llama3 {
            factor: scaling.factor,
            low_freq_factor: scaling.low_freq_factor,
            high_freq_factor: scaling.high_freq_factor,
            original_max_position_embeddings: scaling.original_max_position_embeddings,
        });
    let settings = ModelSettings {
        vocab_size: ByteTokenizer::VOCAB_SIZE,
        hidden_size: section.hidden_size,
        intermediate_size: section.intermediate_size,
        num_hidden_layers: section.num_hidden_layers,
        num_attention_heads: section.num_attention_heads,
        num_key_value_heads: section.num_key_value_heads,
        head_dim: section.head_dim,
        rms_norm_eps: section.rms_norm_eps,
        rope_theta: section.rope_theta,
        rope_scaling,
        max_position_embeddings: section.max_position_embeddings.unwrap_or(config.data.sequence_length),
        initializer_range: section.initializer_range,
        tie_word_embeddings: section.tie_word_embeddings,
        block_size: section.block_size,
        block_counts: section.block_counts,
        window_size: if method == Method::Nsa { section.window_size } else { 0 },
        attention_method: method,
        bos_token_id: None,
        eos_token_id: vec![ByteTokenizer::EOS],
    };
    ModelConfig::new(settings).map_err(|error| match error {
        ModelError::Config { key, value, expected, .. } => {
            ConfigError::Value { key: format!("model.{key}"), value, expected }
        }
        other => ConfigError::Value {
            key: "model".to_owned(),
            value: "refused".to_owned(),
            expected: format!("a model that can be built: {other}"),
        },
    })
}

fn objective(config: &TrainConfig, model: &ModelConfig) -> Objective {
    let section = &config.objective;
    let selection = SelectionOptions {
        block_size: model.block_size,
        block_counts: model.block_counts,
        rule: section.selection,
    };
    Objective {
        attention: AttentionOptions {
            selection,
            document_masking: section.document_masking,
            ..model.attention_options(AttentionMode::Sparse)
        },
        alpha: section.alpha as f32,
        alignment: AlignmentOptions { kind: section.alignment, direction: section.alignment_direction },
        gated_alignment: section.alignment_on == AlignmentInput::Gated,
        recompute: config.training.recompute,
    }
}
