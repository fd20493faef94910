//! Inference with a cache, and generation: token ids in, token ids out.
//!
//! * [`generate`] continues sequences of any [`CachedModel`]; [`GenerationRequest`] says how.
//! * [`Sampler`] draws a token from logits; [`SamplingOptions`] are the settings, and
//!   [`GenerationDefaults`] those that a checkpoint recommends.
//! * [`StopStrings`] end a text at given strings.

mod defaults;
mod error;
mod generation;
mod sampling;
mod stop;

pub use defaults::GenerationDefaults;
pub use error::InferError;
pub use generation::{
    CachedModel, Chunk, FinishReason, GenerationLimits, GenerationObserver, GenerationOptions,
    GenerationRequest, GenerationStatistics, Pass, generate,
};
pub use sampling::{NoiseKey, Sampler, SamplingOptions};
pub use stop::{StopStrings, Stopped};

/// Result of every fallible function in this crate.
pub type Result<T, E = InferError> = std::result::Result<T, E>;
