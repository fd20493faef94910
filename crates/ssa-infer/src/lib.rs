//! Inference with a KV cache.
//!
//! * [`InferenceModel`] holds the weights, laid out for few rows at a time.
//! * [`Engine`] runs it over a cache of many sequences: prompts in chunks, decoding steps, and any
//!   mix of both in one call. Mode and budget of the attention are chosen per call.
//!
//! On a GPU a call with one token for each sequence is a [`DecodingStep`]: recorded once, then
//! replayed by one launch.
//!
//! Token ids go in, logits come out: this crate knows no text.
//!
//! On the CPU the logits of a token depend on its sequence and the options alone. They have the same
//! bits however the sequence is cut into calls, whatever else is in a call, and for any number of
//! threads.

mod engine;
mod error;
mod layer;
mod model;
mod options;
mod sequence;
mod step;

pub use engine::{CallOutput, Engine, Logits};
pub use error::InferError;
pub use layer::SelectionTotals;
pub use model::InferenceModel;
pub use options::{CallOptions, FillChange, FilledBy};
pub use step::{DecodingStep, MOST_STEP_SEQUENCES, StepWork};
pub use ssa_kernels::kv_cache::SequenceId;
pub use ssa_kernels::ops::attention::cached::{PageBudget, PageOptions};

/// Result of every fallible function in this crate.
pub type Result<T, E = InferError> = std::result::Result<T, E>;
