//! `ssa train`.

use std::path::PathBuf;

use clap::Args;

use super::ComputeArgs;

/// Train a model, evaluate it on held-out text and write a report.
///
/// The run is reproducible: the same configuration, text and program give the same weights,
/// whatever the number of threads, and however often it is interrupted and continued. The run
/// directory receives the resolved configuration, the metrics of every step, TensorBoard event
/// files, checkpoints to continue from, the best weights by validation loss, the trained model, a
/// summary and a report.
///
/// SIGINT (Ctrl-C) and SIGTERM save everything up to the last step and exit with code 5; the same
/// command, or --resume, continues. A second signal ends the program immediately. If the loss stays
/// non-finite, the run exits with code 4.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa train configs/demo.toml
  ssa train configs/demo.toml --data notes/ --run-dir runs/notes --set training.steps=500
  ssa train --resume runs/notes")]
pub(crate) struct TrainArgs {
    /// Configuration file (TOML), such as configs/demo.toml.
    #[arg(value_name = "CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Change a setting of the configuration, such as training.steps=500. May be given several
    /// times. docs/reference/config.md lists all settings.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Text to train on, files or directories, or corpora made by `ssa data prepare`, instead of
    /// data.paths and data.corpora. A part is held out for evaluation. The flag takes all paths up
    /// to the next flag, so CONFIG comes before it.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Directory of the run; without it runs/NAME-TIME with the configuration's run.name. An
    /// unfinished run of the same configuration, in this directory or without it in any of that
    /// name, is resumed from its last checkpoint.
    #[arg(long, value_name = "DIR", group = "named")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Continue the run in this directory from its last checkpoint, with the configuration it has.
    #[arg(long, value_name = "RUN_DIR", group = "named", conflicts_with = "config")]
    pub(crate) resume: Option<PathBuf>,
    /// Allow a resumed run to have another value of this key, such as training.steps. May be given
    /// several times.
    #[arg(long, value_name = "KEY", requires = "named")]
    pub(crate) allow_change: Vec<String>,
    /// Replace the run in --run-dir if there is one.
    #[arg(long, requires = "run_dir")]
    pub(crate) overwrite: bool,
    /// Check configuration, data and memory instead of training: print what a step takes of the
    /// device's memory, the largest micro-batch that fits, and a verdict. Fails as the run would.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Show progress line by line (default when standard error is not a terminal).
    #[arg(long)]
    pub(crate) plain: bool,
    /// Skip the evaluation after training.
    #[arg(long)]
    pub(crate) no_eval: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}
