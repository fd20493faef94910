//! Opening the device of `--device`.

use std::env;
use std::path::PathBuf;

use anyhow::Result;
use ssa_kernels::cuda::{self, KernelCache};
use ssa_kernels::{Device, Gpu};

use crate::args::DeviceChoice;
use crate::display::note;
use crate::exit::UsageError;

/// Overrides the kernel cache directory.
const CACHE_VARIABLE: &str = "SSA_CACHE_DIR";

/// Opens the device.
///
/// `auto` falls back to the CPU without a driver or GPU, and reports why if there is a GPU that
/// cannot be used.
pub(super) fn open(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(ordinal) => {
            let refused = |error| UsageError(format!("--device {choice}: {error}"));
            Ok(Device::Cuda(Gpu::open(ordinal, kernel_cache()).map_err(refused)?))
        }
        DeviceChoice::Auto if !cuda::count().is_ok_and(|count| count > 0) => Ok(Device::Cpu),
        DeviceChoice::Auto => match Gpu::open(0, kernel_cache()) {
            Ok(gpu) => Ok(Device::Cuda(gpu)),
            Err(error) => {
                note(&format!("running on the CPU: {error}"));
                Ok(Device::Cpu)
            }
        },
    }
}

/// The kernel cache: `$SSA_CACHE_DIR`, else `ssa` in the user's cache directory.
pub(super) fn kernel_cache() -> KernelCache {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || {
        set("XDG_CACHE_HOME")
            .or_else(|| Some(set("HOME")?.join(".cache")))
            .map(|cache| cache.join("ssa"))
    };
    set(CACHE_VARIABLE)
        .or_else(user)
        .map_or_else(KernelCache::none, |directory| KernelCache::at(directory.join("kernels")))
}
