//! Benchmarks of this machine's device: the parts of attention, matrix products, whole training
//! steps, and decoding steps.
//!
//! Everything uses the public functions of training, on realistic inputs: normal random numbers,
//! and for sparse attention both selections without locality (the worst case) and selections like
//! those of trained models ([`local_selection`]). Times are medians over samples of a few
//! milliseconds after a warm-up, on rotating inputs to defeat the L2 cache ([`Meter`]). Utilization
//! is relative to measured peaks ([`Peaks`]), not to a data sheet.
//!
//! This crate does not print: results are plain serializable rows, returned as they are measured.

mod attention;
mod decode;
mod gemm;
mod inputs;
mod peaks;
mod selection;
mod step;
mod timing;

pub use attention::{AttentionRow, AttentionSettings, attention, attention_bytes};
pub use decode::{DecodeRow, DecodeSettings, decode};
pub use gemm::{GemmRow, gemm, gemm_bytes};
pub use peaks::Peaks;
pub use selection::local_selection;
pub use step::{KernelReport, StepReport, StepRow, StepSettings, step};
pub use timing::{Effort, Meter, Timing};

use ssa_data::DataError;
use ssa_infer::InferError;
use ssa_kernels::KernelError;
use ssa_model::ModelError;
use ssa_train::TrainError;

/// Why a benchmark failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The device failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
    /// The model preset is unknown.
    #[error("{0}")]
    Model(#[from] ModelError),
    /// The random rows cannot be packed.
    #[error("{0}")]
    Data(#[from] DataError),
    /// A decoding step failed.
    #[error("{0}")]
    Infer(#[from] InferError),
    /// A training step failed.
    #[error("{0}")]
    Train(#[from] TrainError),
}

/// Result of every fallible function in this crate.
pub type Result<T, E = BenchError> = std::result::Result<T, E>;
