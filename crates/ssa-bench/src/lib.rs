//! Measures what this machine's device does: the parts of attention, matrix products, whole
//! training steps.
//!
//! Everything goes through the public functions that training uses, on inputs that look like real
//! ones: normal random numbers, and for sparse attention both selections without any locality, the
//! worst case, and selections like those of trained models ([`local_selection`]). Times are medians
//! over samples of a few milliseconds, taken after a warm-up, on rotating inputs so that the
//! second-level cache holds none of them ([`Meter`]). Shares are of what the device was measured to
//! do at best ([`Peaks`]), not of a data sheet.
//!
//! Nothing here prints: results are plain serialisable rows, handed out as they come.

mod attention;
mod gemm;
mod inputs;
mod peaks;
mod selection;
mod step;
mod timing;

pub use attention::{AttentionRow, AttentionSettings, attention, attention_bytes};
pub use gemm::{GemmRow, gemm, gemm_bytes};
pub use peaks::Peaks;
pub use selection::local_selection;
pub use step::{KernelReport, StepReport, StepRow, StepSettings, step};
pub use timing::{Effort, Meter, Timing};

use ssa_data::DataError;
use ssa_kernels::KernelError;
use ssa_model::ModelError;
use ssa_train::TrainError;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The device failed.
    #[error("{0}")]
    Kernel(#[from] KernelError),
    /// There is no such model.
    #[error("{0}")]
    Model(#[from] ModelError),
    /// The random rows cannot be packed.
    #[error("{0}")]
    Data(#[from] DataError),
    /// A training step failed.
    #[error("{0}")]
    Train(#[from] TrainError),
}

/// Result of every fallible function in this crate.
pub type Result<T, E = BenchError> = std::result::Result<T, E>;
