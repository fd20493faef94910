//! `ssa selftest`.

use clap::Args;

/// Check every operation and a whole training step on this machine's device against exact references.
#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Only the checks whose name contains this.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) filter: String,
    /// Print every comparison, not only the worst of each operation and those that failed.
    #[arg(long)]
    pub(crate) verbose: bool,
}
