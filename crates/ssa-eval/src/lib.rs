//! Evaluation of language models under full and sparse attention: perplexity at any budget, the
//! analysis of what sparse attention drops, and the report of a run.
//!
//! Nothing here prints: results are structs, and callers decide how to show them. Progress is
//! reported to a callback.
//!
//! All metrics stream: a batch is at most [`EvalBatch`] large in memory, logits exist for a chunk
//! of its tokens, and means are sums in `f64`, in token order, so that results do not depend on the
//! number of threads.

mod analysis;
mod attention_means;
mod batch;
mod error;
mod losses;
mod monitored;
mod perplexity;
pub mod report;
mod sparsity;
mod summary;

pub use analysis::{Analysis, ModeAttention, analyze};
pub use attention_means::{AttentionMeans, ProbedMeans};
pub use batch::EvalBatch;
pub use error::EvalError;
pub use monitored::{ModeLoss, Monitored, Probe, Validation};
pub use perplexity::{BudgetResult, Perplexity, PerplexityOptions, perplexity};
pub use summary::{Machine, Summary};

/// Result of every fallible function in this crate.
pub type Result<T, E = EvalError> = std::result::Result<T, E>;
