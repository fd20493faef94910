//! `ssa selftest`.

use std::path::PathBuf;

use clap::Args;

/// Check every operation and a whole training step on this machine's device against exact
/// references.
#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Only the checks whose name contains this.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) filter: String,
    /// Also check the golden cases of this directory, such as tests/golden of the repository:
    /// outputs of the released code.
    #[arg(long, value_name = "DIR")]
    pub(crate) golden: Option<PathBuf>,
    /// Print every comparison, not only the worst of each operation and those that failed.
    #[arg(long)]
    pub(crate) verbose: bool,
}
