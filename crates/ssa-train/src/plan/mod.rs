//! A checked configuration.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ssa_data::{Dataset, Tokenizer};
use ssa_kernels::ops::attention::alignment::AlignmentOptions;
use ssa_model::{
    AttentionMode, AttentionOptions, ModelConfig, ModelError, ModelSettings, Objective,
    RopeScaling, SparseBudget,
};

use crate::batch_ramp::BatchRamp;
use crate::config::{AlignmentInput, ConfigError, RopeScalingSection, TrainConfig};
use crate::error::TrainError;
use crate::optimizer::OptimizerOptions;
use crate::schedule::Schedule;
use crate::stream::StreamDraw;
use crate::trainable::Trainable;

mod checks;
#[cfg(test)]
mod tests;

/// A configuration that can run. All values are checked, alone and in combination, so code that
/// uses the plan needs no further checks.
#[derive(Clone, Debug)]
pub struct TrainPlan {
    config: TrainConfig,
    /// The configuration with resolved paths.
    resolved: TrainConfig,
    tokenizer: Arc<Tokenizer>,
    model: ModelConfig,
    objective: Objective,
    streams: StreamDraw,
    batches: BatchRamp,
    schedule: Schedule,
    optimizer: OptimizerOptions,
    trainable: Trainable,
}

impl TrainPlan {
    /// Checks a configuration. Loads the tokenizer of the data, which determines the vocabulary
    /// size; reads nothing else.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the first invalid key and its valid values;
    /// [`ConfigError::Data`] names the file if a tokenizer cannot be loaded.
    pub fn new(config: TrainConfig) -> Result<Self, ConfigError> {
        Self::in_directory(config, Path::new(""))
    }

    /// Like [`new`](Self::new), but reads relative paths from `directory` if they exist there
    /// ([`TrainConfig::in_directory`]). The configuration itself does not change.
    ///
    /// # Errors
    /// Same as [`new`](Self::new).
    pub fn in_directory(config: TrainConfig, directory: &Path) -> Result<Self, ConfigError> {
        checks::check(&config)?;
        config.check_paths()?;
        let resolved = config.in_directory(directory);
        let tokenizer = resolved.data.load_tokenizer()?;
        let model = model_config(&config, &tokenizer)?;
        let settings = &config.optimizer;
        Ok(Self {
            objective: objective(&config, &model),
            trainable: Trainable::new(&settings.trainable, &settings.frozen, &model)?,
            streams: StreamDraw::new(
                config.objective.method,
                config.run.seed,
                config.objective.full_ratio,
                config.objective.stream_draw,
            ),
            batches: batches(&config),
            schedule: schedule(&config),
            optimizer: OptimizerOptions {
                beta1: settings.beta1 as f32,
                beta2: settings.beta2 as f32,
                eps: settings.eps as f32,
                weight_decay: settings.weight_decay as f32,
                decayed: settings.weight_decay_on,
                max_grad_norm: settings.max_grad_norm,
            },
            tokenizer: Arc::new(tokenizer),
            model,
            config,
            resolved,
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

    /// The tokenizer of the data.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Opens the data to train and evaluate on.
    ///
    /// # Errors
    /// [`TrainError::Data`] names the file, or reports that there is too little text.
    pub fn open_data(&self) -> Result<Dataset, TrainError> {
        Ok(self.resolved.dataset_options().open(&self.tokenizer)?)
    }

    /// The model to train.
    pub fn model(&self) -> &ModelConfig {
        &self.model
    }

    /// Checkpoint with the initial weights; `None` for random weights.
    pub fn init_from(&self) -> Option<&PathBuf> {
        self.resolved.model.init_from.as_ref()
    }

    /// The training objective.
    pub fn objective(&self) -> &Objective {
        &self.objective
    }

    /// The random draw of the stream.
    pub fn streams(&self) -> &StreamDraw {
        &self.streams
    }

    /// The learning-rate schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Hyperparameters of the optimizer.
    pub fn optimizer(&self) -> &OptimizerOptions {
        &self.optimizer
    }

    /// The trainable parameters.
    pub fn trainable(&self) -> &Trainable {
        &self.trainable
    }

    /// Weight of the alignment loss in a step, counted from 0. It warms up linearly, like the
    /// learning rate.
    pub fn alpha(&self, step: usize) -> f32 {
        let warmup = self.config.objective.alpha_warmup_steps;
        if step >= warmup {
            return self.objective.alpha;
        }
        (self.config.objective.alpha * (step + 1) as f64 / (warmup + 1) as f64) as f32
    }

    /// Optimizer steps of the run.
    pub fn steps(&self) -> usize {
        self.config.training.steps
    }

    /// Checks that a number of ranks can share the groups of micro-batches.
    ///
    /// # Errors
    /// [`TrainError::RankCount`] with the numbers that can.
    pub fn check_ranks(&self, ranks: usize) -> Result<(), TrainError> {
        let groups = self.batches.groups;
        match ranks > 0 && groups.is_multiple_of(ranks) {
            true => Ok(()),
            false => Err(TrainError::RankCount { ranks, groups }),
        }
    }

    /// Rows and micro-batches of the optimizer steps.
    pub fn batches(&self) -> &BatchRamp {
        &self.batches
    }

    /// The fraction of the micro-batches and layers of some steps, counted from 0, whose stream is
    /// full attention. It depends on the draw only, so a resumed run has the same; 0 for no steps.
    pub fn full_stream_fraction(&self, steps: Range<usize>) -> f64 {
        let layers = self.model.num_hidden_layers;
        let (mut full, mut all) = (0, 0);
        for step in steps {
            for micro_batch in 0..self.batches.micro_batches(step) {
                let streams = self.streams.streams(step as u64, micro_batch as u64, layers);
                full += streams.iter().filter(|&&stream| stream == AttentionMode::Full).count();
                all += streams.len();
            }
        }
        full as f64 / all.max(1) as f64
    }

    /// Attention mode whose validation loss selects the best weights.
    pub fn best_by(&self) -> AttentionMode {
        self.config.monitoring.best_by.unwrap_or(self.config.objective.method.main_mode())
    }

    /// Tokens per row.
    pub fn sequence_length(&self) -> usize {
        self.config.data.sequence_length
    }

    /// Sparse attention budgets to evaluate.
    pub fn budgets(&self) -> &[SparseBudget] {
        &self.config.evaluation.budgets
    }
}

fn batches(config: &TrainConfig) -> BatchRamp {
    let training = &config.training;
    let start = training.batch_size_start.unwrap_or(training.batch_size);
    BatchRamp {
        micro_batch_size: training.micro_batch_size.unwrap_or(start / training.groups),
        groups: training.groups,
        start,
        full: training.batch_size,
        steps: training.batch_ramp_steps,
    }
}

fn schedule(config: &TrainConfig) -> Schedule {
    let (steps, settings) = (config.training.steps, &config.optimizer);
    let share = |fraction: f64| (fraction * steps as f64).round() as usize;
    Schedule {
        peak: settings.learning_rate,
        minimum: settings.min_learning_rate,
        warmup: settings.warmup_steps.unwrap_or_else(|| share(settings.warmup_fraction)),
        steps,
        shape: settings.schedule,
        decay: share(settings.decay_fraction),
    }
}

/// The configuration of the model. The model crate checks it; errors name the keys of `[model]`.
fn model_config(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<ModelConfig, ConfigError> {
    let section = &config.model;
    let method = config.objective.method;
    let rope_scaling =
        section.rope_scaling.as_ref().map_or(RopeScaling::None, RopeScalingSection::scaling);
    let vocab_size = section.vocab_size.unwrap_or(tokenizer.vocab_size());
    if vocab_size < tokenizer.vocab_size() {
        return Err(ConfigError::Value {
            key: "model.vocab_size".to_owned(),
            value: vocab_size.to_string(),
            expected: expected_vocabulary(config, vocab_size, tokenizer.vocab_size()),
        });
    }
    let budget = SparseBudget::new(section.block_size, section.block_counts).map_err(|_| {
        let (key, value, expected) = match (section.block_size, section.block_counts) {
            (0, _) => ("model.block_size", 0, "at least 1"),
            (_, 0) => ("model.block_counts", 0, "at least 1"),
            (_, counts) => {
                let expected = "a number whose product with model.block_size fits in 64 bits";
                ("model.block_counts", counts, expected)
            }
        };
        let (key, value) = (key.to_owned(), value.to_string());
        ConfigError::Value { key, value, expected: expected.to_owned() }
    })?;
    let settings = ModelSettings {
        vocab_size,
        hidden_size: section.hidden_size,
        intermediate_size: section.intermediate_size,
        num_hidden_layers: section.num_hidden_layers,
        num_attention_heads: section.num_attention_heads,
        num_key_value_heads: section.num_key_value_heads,
        head_dim: section.head_dim,
        rms_norm_eps: section.rms_norm_eps,
        rope_theta: section.rope_theta,
        rope_scaling,
        max_position_embeddings: section
            .max_position_embeddings
            .unwrap_or(config.data.sequence_length),
        initializer_range: section.initializer_range,
        tie_word_embeddings: section.tie_word_embeddings,
        gated: section.gated,
        qkv_bias: section.qkv_bias,
        qk_norm: section.qk_norm,
        budget,
        window_size: if method.uses_window() { section.window_size } else { 0 },
        attention_method: method,
        bos_token_id: None,
        eos_token_id: vec![tokenizer.eos()],
    };
    ModelConfig::new(settings).map_err(|error| match error {
        ModelError::Config { key, value, expected, .. } => {
            let key = match key.as_str() {
                "attention_method" => "objective.method".to_owned(),
                _ => format!("model.{key}"),
            };
            ConfigError::Value { key, value, expected }
        }
        other => ConfigError::Value {
            key: "model".to_owned(),
            value: "impossible".to_owned(),
            expected: format!("a model that can be built: {other}"),
        },
    })
}

/// The vocabulary that the tokenizer needs, and why the model has a smaller one.
fn expected_vocabulary(config: &TrainConfig, vocab_size: usize, needed: usize) -> String {
    let expected = format!("at least {needed}, the vocabulary of the tokenizer of the data");
    match &config.model.init_from {
        None => format!("{expected}\nhint: prepare the data with the tokenizer of the model"),
        Some(name) => format!(
            "{expected}\nhint: {} has a vocabulary of {vocab_size}, but the tokenizer of the data \
             has one of {needed}: prepare the data with the tokenizer of the model",
            name.display()
        ),
    }
}

fn objective(config: &TrainConfig, model: &ModelConfig) -> Objective {
    let section = &config.objective;
    let selection = model.budget.selection(section.selection);
    Objective {
        attention: AttentionOptions {
            selection,
            document_masking: section.document_masking,
            ..model.attention_options(AttentionMode::Sparse)
        },
        alpha: section.alpha as f32,
        alignment: AlignmentOptions {
            kind: section.alignment,
            direction: section.alignment_direction,
        },
        gated_alignment: section.alignment_on == AlignmentInput::Gated,
        z_loss: section.z_loss as f32,
        recompute: config.training.recompute,
    }
}
