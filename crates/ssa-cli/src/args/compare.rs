//! `ssa compare`.

use std::path::PathBuf;

use clap::Args;

use super::{ComputeArgs, parse_positive};

/// Train a grid of runs, evaluate all of them and write tables that compare them.
///
/// The grid is a TOML file: a training configuration, seeds, and runs with the keys that each
/// changes. Every run with every seed is a unit, a run directory of its own. The same command
/// resumes an interrupted comparison. The tables have the mean and the standard deviation over
/// seeds, as comparison.txt, comparison.md, comparison.csv, comparison.json and as a page,
/// comparison.html.
///
/// A scheduler trains units on several machines that share the directory: one job per number of
/// --list, each with --only. Afterwards the command without --only writes the tables.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa compare configs/compare.toml
  ssa compare configs/ablations.toml --output runs/ablations --set training.steps=2000
  ssa compare configs/compare.toml --list
  ssa compare configs/compare.toml --only 3")]
pub(crate) struct CompareArgs {
    /// File of the grid (TOML), such as configs/compare.toml.
    #[arg(value_name = "GRID")]
    pub(crate) grid: PathBuf,
    /// Override a configuration key of all runs, such as training.steps=500. Keys that a run sets
    /// itself stay. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Directory of the runs and tables. Default: runs/NAME with the name of the grid's file.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// List the units and their state, and do nothing else.
    #[arg(long, conflicts_with = "only")]
    pub(crate) list: bool,
    /// Train the unit with this number alone, and write no tables.
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub(crate) only: Option<usize>,
    /// Show progress line by line (default when standard error is not a terminal).
    #[arg(long)]
    pub(crate) plain: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}
