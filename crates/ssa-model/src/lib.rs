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
//! * [`Method`], [`AttentionMode`] and [`DocumentMasking`] are the words of the method;
//!   [`AttentionOptions`] says how one call uses them.
//! * [`Model`] runs: [`Model::forward`] for inference, [`Model::train_step`] for one micro-batch
//!   forward and backward. The file `attention/plan.rs` is the only place where the four methods
//!   differ.

mod attention;
mod budget;
pub mod checkpoint;
mod config;
mod error;
mod init;
mod input;
mod layer;
mod mlp;
mod model;
mod options;
mod parameters;
mod rope;
#[cfg(test)]
mod testing;
mod training;

pub use budget::SparseBudget;
pub use config::{ModelConfig, ModelSettings, RopeScaling};
pub use error::ModelError;
pub use input::{Input, TrainBatch};
pub use model::{LayerAttention, Model};
pub use options::{AttentionMode, AttentionOptions, DocumentMasking, Method};
pub use parameters::{LayerParameters, Parameters, parameter_count, parameter_shapes};
pub use training::{Objective, StepLosses, StepScale};

/// Result of every fallible function in this crate.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;
