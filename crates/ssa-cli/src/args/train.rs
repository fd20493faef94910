//! `ssa train`.

use std::path::PathBuf;

use clap::Args;

use super::ComputeArgs;

/// More ranks than any run has groups.
const MOST_RANKS: usize = 4096;

/// Train a model, evaluate it on held-out text and write a report.
///
/// Runs are reproducible: the same configuration, text and program give the same weights, for any
/// number of threads and interruptions. The run directory contains the resolved configuration, the
/// metrics of every step, TensorBoard event files, checkpoints for resuming, the best weights by
/// validation loss, the trained model, a summary and a report.
///
/// SIGINT (Ctrl-C) and SIGTERM save everything up to the last step and exit with code 5; the same
/// command, or --resume, resumes the run. A second signal ends the program immediately. If the loss
/// stays non-finite, the run exits with code 4.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa train configs/demo.toml
  ssa train configs/demo.toml --data notes/ --run-dir runs/notes --set training.steps=500
  ssa train --resume runs/notes
  ssa train configs/demo.toml --set training.groups=2 --ranks 2
  ssa train configs/ssa-8b.toml --gpus 8 --dry-run")]
pub(crate) struct TrainArgs {
    /// Configuration file (TOML), such as configs/demo.toml.
    #[arg(value_name = "CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Override a configuration key, such as training.steps=500. May be given several times.
    /// docs/reference/config.md lists all keys.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Text files or directories, or corpora from `ssa data prepare`, to train on instead of
    /// data.paths and data.corpora. A part is held out for evaluation. The flag takes all paths up
    /// to the next flag, so put CONFIG before it.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Run directory. Default: runs/NAME-TIME with run.name of the configuration. An unfinished run
    /// with the same configuration in this directory (by default, in any directory of that name) is
    /// resumed from its last checkpoint.
    #[arg(long, value_name = "DIR", group = "named")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Resume the run in this directory from its last checkpoint, with its configuration.
    #[arg(long, value_name = "RUN_DIR", group = "named", conflicts_with = "config")]
    pub(crate) resume: Option<PathBuf>,
    /// Allow a resumed run to change this key, such as training.steps. May be given several times.
    #[arg(long, value_name = "KEY", requires = "named")]
    pub(crate) allow_change: Vec<String>,
    /// Replace the run in --run-dir, if there is one.
    #[arg(long, requires = "run_dir")]
    pub(crate) overwrite: bool,
    /// Check configuration, data and memory without training: print the memory of a step on the
    /// device, the largest micro-batch that fits, and a verdict. Fails with the same errors as the
    /// run.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Train with this many processes, which this one starts on its host and which share its cores.
    /// The number must divide training.groups, and does not change the results. Default: 1, or as
    /// many as a launcher says (torchrun, srun, mpirun, Kubeflow, SkyPilot).
    #[arg(long, value_name = "N", value_parser = parse_ranks)]
    pub(crate) ranks: Option<usize>,
    /// Train on this many GPUs of this host: as --ranks, with a GPU for each process.
    #[arg(long, value_name = "N", value_parser = parse_ranks)]
    #[arg(conflicts_with_all = ["ranks", "device"])]
    pub(crate) gpus: Option<usize>,
    /// Where rank 0 listens for the others, instead of the address that a launcher gives.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) rendezvous: Option<String>,
    /// Show progress line by line (default when standard error is not a terminal).
    #[arg(long)]
    pub(crate) plain: bool,
    /// Skip the evaluation after training.
    #[arg(long)]
    pub(crate) no_eval: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

impl TrainArgs {
    /// The arguments for a plan that is trained, evaluated and resumed in this directory.
    pub(crate) fn in_directory(run_dir: PathBuf, plain: bool, compute: ComputeArgs) -> Self {
        Self {
            config: None,
            overrides: Vec::new(),
            data: Vec::new(),
            run_dir: Some(run_dir),
            resume: None,
            allow_change: Vec::new(),
            overwrite: false,
            dry_run: false,
            ranks: None,
            gpus: None,
            rendezvous: None,
            plain,
            no_eval: false,
            compute,
        }
    }
}

fn parse_ranks(text: &str) -> Result<usize, String> {
    let ranks = text.parse().ok().filter(|ranks| (1..=MOST_RANKS).contains(ranks));
    ranks.ok_or_else(|| format!("expected an integer from 1 to {MOST_RANKS}"))
}
