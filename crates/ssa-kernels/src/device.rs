//! Where a tensor lives.

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

impl Device {
    /// The type that weights and activations have on this device.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Cpu => DType::F32,
            Self::Cuda(_) => DType::Bf16,
        }
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

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit floating point: everything on the CPU; statistics, weight gradients and moments on a
    /// GPU.
    F32,
    /// The upper half of an `f32`: weights, activations and their gradients on a GPU.
    Bf16,
    /// 16-bit integers: the part of a master weight that `bf16` drops.
    I16,
}

impl DType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::I16 => 2,
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::I16 => "i16",
        })
    }
}
