//! Where NCCL is found: `$SSA_NCCL`, the system, or the active Python.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ssa_kernels::KernelError;
use ssa_kernels::cuda::{Library, LibraryFile};

/// Names the file of NCCL.
const VARIABLE: &str = "SSA_NCCL";

/// Prints the directories of the package `nvidia-nccl-cu13`.
const PYTHON: &str = "import nvidia.nccl as nccl; print(*nccl.__path__, sep='\\n')";

/// Loads NCCL.
///
/// # Errors
/// [`KernelError::Library`] if it is missing or too old.
pub(super) fn find() -> Result<LibraryFile, KernelError> {
    let named = env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    Library::Nccl.find(named, of_python)
}

/// The directories with libraries of the package that `python3` imports.
fn of_python() -> Vec<PathBuf> {
    let mut python = Command::new("python3");
    python.args(["-c", PYTHON]).stdin(Stdio::null());
    let printed = python.output().map(|output| output.stdout).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    printed.lines().map(|directory| PathBuf::from(directory).join("lib")).collect()
}
