//! `ssa train`.

use std::path::PathBuf;

use clap::Args;

/// Train a model, evaluate it on held-out text and write a report.
///
/// The run is reproducible: the same configuration, text and program give the same weights, whatever the number of
/// threads. The run directory receives the resolved configuration, the metrics of every step, the checkpoint, a
/// summary and a report.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// Configuration file (TOML), such as configs/demo.toml.
    #[arg(value_name = "CONFIG")]
    pub(crate) config: PathBuf,
    /// Change a setting of the configuration, such as training.steps=500. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Text to train on, files or directories, instead of data.paths. A part of it is held out for evaluation.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Directory of the run; without it runs/NAME-TIME with the configuration's run.name.
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Replace the run in --run-dir if there is one.
    #[arg(long, requires = "run_dir")]
    pub(crate) overwrite: bool,
    /// Leave out the evaluation after training.
    #[arg(long)]
    pub(crate) no_eval: bool,
}
