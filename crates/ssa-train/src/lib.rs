//! Training: from a configuration file to a trained model and a record of the run.
//!
//! ```text
//! TrainConfig  a TOML file and --set overrides: right keys, right types
//!   -> TrainPlan   checked: values that work together, the model, the objective
//!   -> Trainer     an iterator over optimiser steps
//!   -> RunDir      configuration, metrics and checkpoint on disk
//! ```
//!
//! Nothing here prints: [`Trainer`] yields [`StepMetrics`] and the caller shows them.

pub mod config;
mod error;
mod initial;
mod metrics;
mod optimizer;
mod plan;
mod run_dir;
mod schedule;
mod stream;
mod text;
mod trainer;

pub use config::{ConfigError, TrainConfig, apply_overrides};
pub use error::TrainError;
pub use metrics::{MetricsWriter, StepMetrics};
pub use optimizer::{Optimizer, OptimizerOptions};
pub use plan::TrainPlan;
pub use run_dir::{Existing, RunDir};
pub use schedule::Schedule;
pub use stream::{StreamDraw, StreamScope};
pub use trainer::Trainer;

/// Result of every fallible function in this crate except for the configuration, which has [`ConfigError`].
pub type Result<T, E = TrainError> = std::result::Result<T, E>;
