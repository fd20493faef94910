//! The Llama decoder with full and sparse attention: configuration, parameters, forward and
//! backward, checkpoints.
//!
//! The architecture is `llama-nsa` of the released SSA code: a Llama-3 decoder (RMS norm, grouped
//! queries, RoPE, SwiGLU, no biases) whose attention outputs are multiplied by one sigmoid gate per
//! query head. A model on disk is a Hugging Face folder, `config.json` and `model.safetensors`,
//! under the released names.
//!
//! * [`ModelConfig`] is a checked configuration; [`ModelSettings`] are its values before the check.
//! * [`Parameters`] are the tensors of a model, and also its gradients.
//! * [`checkpoint`] reads and writes models; [`Parameters::init`] makes fresh ones.
//! * [`Method`] says which attentions a model has and how training uses them; a method is data, a
//!   [`MethodSpec`] built from [`AttentionKind`]s. [`AttentionOptions`] say how one call uses them.
//! * [`Model`] runs: [`Model::forward`] for inference, [`Model::train_step`] for one micro-batch
//!   forward and backward, whose losses stay on the device as [`StepLosses`].

mod attention;
pub mod checkpoint;
mod config;
mod error;
mod input;
mod layer;
mod losses;
mod method;
mod mlp;
mod model;
mod options;
mod parameters;
mod rope;
#[cfg(test)]
mod testing;

pub use config::{ModelConfig, ModelSettings, RopeScaling};
pub use error::{InputError, ModelError, OptionsError};
pub use input::{Input, TrainBatch};
pub use losses::{LossDenominators, Losses, PendingLosses, StepLosses};
pub use method::{
    AttendedKeys, AttentionInputs, AttentionKind, AttentionSizes, CachedAttention, CachedInputs,
    Compression, Full, LayerPlan, Method, MethodSpec, PlannedAttention, SavedAttention, Sparse,
    Training, Window,
};
pub use model::{LayerAttention, Model, Objective};
pub use options::{AttentionOptions, DocumentMasking};
pub use parameters::{LayerParameters, Parameters, parameter_count, parameter_shapes};
pub use rope::GrowingRopeTable;
pub use ssa_kernels::ops::attention::AttentionMode;
pub use ssa_kernels::ops::attention::selection::SparseBudget;

/// Result of every fallible function in this crate.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;
