//! The Llama decoder with full and sparse attention: configuration, parameters, forward and
//! backward, checkpoints.
//!
//! The architecture is `llama-nsa` of the released SSA code: a Llama-3 decoder (RMS norm, grouped
//! queries, RoPE, SwiGLU, no biases) whose attention outputs are multiplied by one sigmoid gate per
//! query head. The plain families `llama`, `mistral`, `qwen2` and `qwen3` lack the gates; Qwen2 has
//! biases on q, k and v, Qwen3 normalizes the heads of q and k. A model on disk is a Hugging Face
//! folder, `config.json` and `model.safetensors` (or shards and their index), under the names of
//! transformers.
//!
//! * [`ModelConfig`] is a checked configuration; [`ModelSettings`] are its unchecked values.
//! * [`Parameters`] are the tensors of a model or their gradients.
//! * [`checkpoint`] reads and writes models; [`Parameters::init`] initializes new ones;
//!   [`Model::with_gates`] converts a plain model to an SSA model.
//! * [`Method`] defines the attentions of a model and their use in training. A method is data: a
//!   [`MethodSpec`] built from [`AttentionKind`]s. [`AttentionOptions`] configure one call.
//! * [`Model`] runs: [`Model::forward`] for inference, [`Model::train_step`] for the forward and
//!   backward pass of one micro-batch. Its losses stay on the device as [`StepLosses`].

mod attention;
pub mod checkpoint;
mod config;
mod convert;
mod error;
mod gradients;
mod input;
mod layer;
mod losses;
mod method;
mod mlp;
mod model;
mod options;
mod parameters;
mod projection;
mod rope;
#[cfg(test)]
mod testing;

pub use config::{ModelConfig, ModelSettings, RopeScaling, Yarn};
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
