//! Where the elements of a tensor are.

use crate::cuda::Gpu;
use crate::{DType, Device};

/// A [`Device`] that is borrowed from a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location<'a> {
    Cpu,
    Cuda(&'a Gpu),
    /// A GPU that exists in tests only. Ops check the arguments of a call on it as on a real GPU,
    /// then report that they have no kernels for it.
    #[cfg(test)]
    Simulated,
}

impl Location<'_> {
    /// The type that weights and activations have there.
    pub(crate) fn activation_dtype(self) -> DType {
        match self {
            Self::Cpu => Device::Cpu.dtype(),
            Self::Cuda(_) => DType::Bf16,
            #[cfg(test)]
            Self::Simulated => DType::Bf16,
        }
    }

    /// The device; none for the simulated GPU of tests.
    pub(crate) fn device(self) -> Option<Device> {
        match self {
            Self::Cpu => Some(Device::Cpu),
            Self::Cuda(gpu) => Some(Device::Cuda(gpu.clone())),
            #[cfg(test)]
            Self::Simulated => None,
        }
    }
}

impl std::fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => Device::Cpu.fmt(f),
            Self::Cuda(gpu) => gpu.fmt(f),
            #[cfg(test)]
            Self::Simulated => f.write_str("simulated:0"),
        }
    }
}
