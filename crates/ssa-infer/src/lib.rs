//! Inference with a KV cache, and generation.
//!
//! * [`InferenceModel`] holds the weights, laid out for few rows at a time.
//! * [`Engine`] runs it over a cache of many sequences: prompts in chunks, decoding steps, and any
//!   mix of both in one call. Mode and budget of the attention are chosen per call.
//! * On a GPU, a call with a token or a few for each sequence is a [`DecodingStep`]: recorded once,
//!   then replayed by one launch. It draws its tokens itself, and the next one is queued before the
//!   host has read them.
//! * [`generate`] continues sequences of any [`CachedModel`], such as a [`GenerationEngine`], with
//!   self-speculation; [`GenerationRequest`] says how.
//! * A [`Sampler`] of [`ssa_kernels::ops::sampling`] draws the tokens; [`GenerationDefaults`] is
//!   what a checkpoint recommends for it.
//! * [`StopStrings`] end a text at given strings.
//!
//! Token ids go in, token ids come out: this crate knows no tokenizer.
//!
//! On the CPU the logits of a token depend on its sequence and the options alone. They have the
//! same bits however the sequence is cut into calls, whatever else is in a call, and for any number
//! of threads.

mod budget;
mod defaults;
mod engine;
mod error;
mod filled_by;
mod generation;
mod layer;
mod model;
mod options;
mod sequence;
mod step;
mod stop;
mod weights;

pub use budget::{Budget, InvalidBudget};
pub use defaults::GenerationDefaults;
pub use engine::{CallOutput, DrawRequest, Engine, Logits, MeasuredText, ScoredChunk, TokenScore};
pub use error::InferError;
pub use filled_by::FilledBy;
pub use generation::{
    CachedModel, Chunk, FinishReason, GenerationEngine, GenerationLimits, GenerationObserver,
    GenerationOptions, GenerationRequest, GenerationStatistics, Pass, generate,
};
pub use layer::SelectionTotals;
pub use model::{InferenceModel, MOST_STEP_SEQUENCES};
pub use options::{CallOptions, FillChange};
pub use ssa_kernels::kv_cache::SequenceId;
pub use ssa_kernels::ops::attention::cached::{PageBudget, PageOptions};
pub use ssa_kernels::ops::sampling::{Draw, NoiseKey, Sampler, SamplingError, SamplingOptions};
pub use step::{DecodingStep, StepDraws, StepWork};
pub use stop::{StopStrings, Stopped};

/// Result of every fallible function in this crate.
pub type Result<T, E = InferError> = std::result::Result<T, E>;
