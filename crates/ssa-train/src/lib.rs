//! Training: from a configuration file to a trained model and a record of the run.
//!
//! ```text
//! TrainConfig  a TOML file and --set overrides, with keys and types checked
//!   -> TrainPlan   checked values: the model, the objective, the schedule, the data
//!   -> Trainer     an iterator over optimizer steps
//!   -> RunDir      a directory on disk, locked by one process
//!   -> Session     a trainer in a run directory: logs, checkpoints, recovery from bad steps
//! ```
//!
//! This crate does not print: [`Session`] yields [`Event`]s for the caller to show. It does not
//! evaluate either: the caller measures on held-out text between two steps and passes
//! [`Measurements`], which are logged as they are.

mod batch_ramp;
mod best;
mod checkpoint;
mod clock;
pub mod config;
mod diagnosis;
mod error;
mod fingerprint;
mod flops;
mod initial_model;
mod journal;
mod lock;
mod measurements;
mod memory;
mod metrics;
mod model_files;
mod model_source;
mod optimizer;
mod plan;
mod run_dir;
mod schedule;
mod session;
mod step_log;
mod stream;
mod tensorboard;
mod trainable;
mod trainer;
mod unit;

pub use batch_ramp::BatchRamp;
pub use best::Best;
pub use checkpoint::{BadSteps, Checkpoint, CheckpointError, Checkpoints, RunState, verify_model};
pub use config::{ConfigError, Grid, GridRun, TrainConfig, apply_overrides};
pub use diagnosis::{BadStep, Diagnosis};
pub use error::TrainError;
pub use initial_model::initial_model;
pub use journal::{JournalEntry, RunEvent};
pub use measurements::Measurements;
pub use memory::{MemoryEstimate, StepShape};
pub use metrics::{LoggedStep, StepMetrics};
pub use model_source::ModelSource;
pub use optimizer::{DecayedWeights, Optimizer, OptimizerOptions};
pub use plan::TrainPlan;
pub use run_dir::{Existing, Progress, ResumePoint, RunDir};
pub use schedule::{Schedule, ScheduleShape};
pub use session::{Event, Session};
pub use stream::{StreamDraw, StreamScope};
pub use trainable::Trainable;
pub use trainer::Trainer;
pub use unit::Unit;

/// Result of every fallible function in this crate except for the configuration, which has
/// [`ConfigError`].
pub type Result<T, E = TrainError> = std::result::Result<T, E>;
