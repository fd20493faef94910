//! `ssa selftest` and `ssa doctor`.

use std::path::PathBuf;

use clap::Args;

use super::ComputeArgs;

/// Check every operation and a whole training step against exact references on this device.
///
/// Compares every operation, forward and backward, with a reference in double precision, and also
/// the losses and gradients of whole training steps of small models. The tolerance is twice the
/// error of a plain bf16 computation. Outputs are filled with NaN beforehand, gradients are also
/// accumulated, and everything runs twice and must give the same bits. Training steps are compared
/// for the blocks that the device selected, whose scores must equal the best ones up to rounding.
/// Exits with code 1 if a check fails.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa selftest
  ssa selftest --device cuda:0 --filter sparse --verbose
  ssa selftest --golden tests/golden")]
pub(crate) struct SelftestArgs {
    /// Run only the checks whose name contains this.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) filter: String,
    /// Also check the golden cases in this directory, such as tests/golden in the repository:
    /// logits, losses and gradients of the released code.
    #[arg(long, value_name = "DIR")]
    pub(crate) golden: Option<PathBuf>,
    /// Print every comparison, not only the worst one of each operation and the failed ones.
    #[arg(long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Show devices and libraries, and what to install if something is missing.
///
/// Lists the program, the processor, the libraries that a GPU needs (driver, NVRTC, cuBLASLt) with
/// their versions and files, the GPUs, and the compiled kernels on disk.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa doctor
  ssa doctor --compile sm_80,sm_90a --max-spill 64")]
pub(crate) struct DoctorArgs {
    /// Compile all GPU kernels for these architectures, such as sm_90a, and report those that spill
    /// registers. Needs NVRTC but no GPU. Exits with code 1 if a kernel does not compile or spills
    /// more than --max-spill.
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    pub(crate) compile: Vec<String>,
    /// Bytes that a kernel may spill to memory, stores and loads together.
    #[arg(long, value_name = "BYTES", requires = "compile", default_value_t = 0)]
    pub(crate) max_spill: usize,
    /// Print the registers of every compiled kernel, not only of those that spill.
    #[arg(long, requires = "compile")]
    pub(crate) verbose: bool,
}
