//! Evaluation of language models with full and sparse attention: perplexity at any budget and
//! context length, benchmark tasks, analysis of sparse attention, comparisons of runs, and reports.
//!
//! This crate does not print: results are structs for the caller to show, and progress goes to a
//! callback.
//!
//! All metrics stream: memory holds one [`EvalBatch`] and the logits of a chunk of its tokens.
//! Means are `f64` sums in token order within a batch, and of batches in their order, so results
//! depend neither on the number of threads nor on that of the ranks that share the batches.

mod analysis;
mod attention_means;
mod batch;
pub mod comparison;
mod distinct;
mod error;
pub mod harness;
mod losses;
mod mass;
mod monitored;
mod perplexity;
mod profile;
pub mod report;
mod shared;
pub mod sliding;
mod sparsity;
mod sum;
mod summary;

pub use analysis::{Analysis, ModeAttention, analyze, analyze_in_detail};
pub use attention_means::{AttentionMeans, ProbedMeans};
pub use batch::EvalBatch;
pub use error::EvalError;
pub use mass::{MassMeans, MassResult};
pub use monitored::{ModeLoss, Monitored, Probe, Validation};
pub use perplexity::{
    BudgetResult, Perplexity, PerplexityOptions, evaluate_budgets, evaluate_mass_budgets,
    perplexity,
};
pub use profile::{AttentionProfile, ContextMeans, DistanceShare, OracleAgreement};
pub use summary::{Machine, Summary};

/// Result of every fallible function in this crate.
pub type Result<T, E = EvalError> = std::result::Result<T, E>;
