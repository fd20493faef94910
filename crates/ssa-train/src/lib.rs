//! Training: from a configuration file to a trained model and a record of the run.
//!
//! ```text
//! TrainConfig  a TOML file and --set overrides: right keys, right types
//!   -> TrainPlan   checked: values that work together, the model, the objective
//!   -> Trainer     an iterator over optimiser steps
//!   -> RunDir      a directory on disk that one run at a time works in
//!   -> Session     a trainer in a run directory: keeps metrics and checkpoints, gets past bad numbers
//! ```
//!
//! Nothing here prints: [`Session`] yields [`Event`]s and the caller shows them.

mod checkpoint;
pub mod config;
mod diagnosis;
mod error;
mod initial;
mod journal;
mod lock;
mod metrics;
mod optimizer;
mod plan;
mod resume;
mod run_dir;
mod schedule;
mod session;
mod stream;
mod text;
mod trainer;

pub use checkpoint::{BadSteps, Checkpoint, CheckpointError, Checkpoints, RunState, SaveStep};
pub use config::{ConfigError, TrainConfig, apply_overrides};
pub use diagnosis::{BadStep, Diagnosis};
pub use error::TrainError;
pub use journal::{JournalEntry, RunEvent};
pub use metrics::{KeptSteps, MetricsWriter, StepMetrics};
pub use optimizer::{Optimizer, OptimizerOptions};
pub use plan::TrainPlan;
pub use run_dir::{Existing, RunDir};
pub use schedule::Schedule;
pub use session::{Event, Session};
pub use stream::{StreamDraw, StreamScope};
pub use trainer::Trainer;

/// Result of every fallible function in this crate except for the configuration, which has [`ConfigError`].
pub type Result<T, E = TrainError> = std::result::Result<T, E>;
