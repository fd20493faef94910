//! `ssa doctor`.

use clap::Args;

/// Show the devices and libraries found, and what to install where something is missing.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Compile all GPU kernels for these architectures, such as sm_90a, and report registers. Needs
    /// NVRTC but no GPU. Fails if a kernel does not compile or spills more than --max-spill.
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    pub(crate) compile: Vec<String>,
    /// Bytes of registers that a kernel may move to memory.
    #[arg(long, value_name = "BYTES", requires = "compile", default_value_t = 0)]
    pub(crate) max_spill: usize,
    /// Print the registers of every kernel that is compiled, not only those with faults.
    #[arg(long, requires = "compile")]
    pub(crate) verbose: bool,
}
