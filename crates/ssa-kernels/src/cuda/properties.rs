//! What a GPU is.

use cudarc::driver::{result, sys};

use super::library::{Library, driver_message};
use crate::{KernelError, Result};

/// What a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuProperties {
    /// Number of the device, as in `cuda:0`.
    pub ordinal: usize,
    /// Name of the card.
    pub name: String,
    /// Compute capability times ten: 90 for an H100.
    pub compute_capability: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Device memory, bytes.
    pub memory: usize,
    /// Second-level cache, bytes.
    pub l2_cache: usize,
    /// The most dynamic shared memory of a block, bytes.
    pub shared_memory: usize,
}

impl GpuProperties {
    /// The architecture that kernels are compiled for, with its specific instructions if any.
    pub fn arch(&self) -> String {
        let own_instructions = if self.compute_capability >= 90 { "a" } else { "" };
        format!("sm_{}{own_instructions}", self.compute_capability)
    }

    /// Whether the tensor cores read operands from shared memory: an H100 and its like, not what
    /// came after.
    pub(crate) fn has_warpgroups(&self) -> bool {
        self.compute_capability == 90
    }
}

/// Number of GPUs that the driver shows.
///
/// # Errors
/// [`KernelError::Library`] without a driver, [`KernelError::Cuda`] if it does not answer.
pub fn count() -> Result<usize> {
    initialize()?;
    let count = result::device::get_count()
        .map_err(|error| KernelError::cuda("cuDeviceGetCount", error))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The properties of a GPU.
///
/// # Errors
/// As [`count`], and [`KernelError::Argument`] if there is no such device.
pub fn properties(ordinal: usize) -> Result<GpuProperties> {
    let count = count()?;
    if ordinal >= count {
        let expected = match count {
            0 => "a GPU, but the driver shows none: see nvidia-smi, or use --device cpu".to_owned(),
            1 => "0: there is one GPU".to_owned(),
            _ => format!("below {count}, the number of GPUs"),
        };
        return Err(KernelError::value("Gpu::open", "device", expected, format!("cuda:{ordinal}")));
    }
    let failed = |error| KernelError::cuda("cuDeviceGet", error);
    let device = result::device::get(ordinal as i32).map_err(failed)?;
    let attribute = |which| -> Result<usize> {
        // SAFETY: the device is one of those counted above.
        let value = unsafe { result::device::get_attribute(device, which) }
            .map_err(|error| KernelError::cuda("cuDeviceGetAttribute", error))?;
        Ok(usize::try_from(value).unwrap_or(0))
    };
    use sys::CUdevice_attribute_enum as Attribute;
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(GpuProperties {
        ordinal,
        name: result::device::get_name(device).map_err(failed)?,
        compute_capability: (major * 10 + minor) as u32,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }.map_err(failed)?,
        l2_cache: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        shared_memory: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
    })
}

fn initialize() -> Result<()> {
    Library::Driver.load()?;
    result::init().map_err(|error| KernelError::Library {
        name: "libcuda",
        cause: format!("the driver does not start: {}", driver_message(error)),
        remedy: "see whether nvidia-smi works, or run with --device cpu",
    })
}
