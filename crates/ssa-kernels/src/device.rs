//! Where a tensor lives.

use crate::DType;
use crate::cuda::Gpu;

/// A compute device. The set is closed and chosen at run time; ops dispatch on it in their
/// `mod.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// The host processor: `f32`, parallel over rayon's global pool.
    Cpu,
    /// An NVIDIA GPU: `bf16` with `f32` accumulation.
    Cuda(Gpu),
}

/// What memory depends on: a device that need not be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The host processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl DeviceKind {
    /// The type that weights and activations have on such a device.
    pub fn dtype(self) -> DType {
        match self {
            Self::Cpu => DType::F32,
            Self::Cuda => DType::Bf16,
        }
    }
}

impl Device {
    /// The kind of this device.
    pub fn kind(&self) -> DeviceKind {
        match self {
            Self::Cpu => DeviceKind::Cpu,
            Self::Cuda(_) => DeviceKind::Cuda,
        }
    }

    /// The type that weights and activations have on this device.
    pub fn dtype(&self) -> DType {
        self.kind().dtype()
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(gpu) => gpu.fmt(f),
        }
    }
}
