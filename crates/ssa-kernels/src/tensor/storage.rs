//! The memory of a tensor.

use std::sync::{Arc, OnceLock};

use half::bf16;

use crate::cuda::{Buffer, Gpu};
use crate::{DType, Result};

/// The elements of a tensor.
#[derive(Clone, Debug)]
pub(super) enum Storage {
    Cpu(Vec<f32>),
    Cuda(CudaStorage),
    /// No memory: a tensor to try the checks of ops with.
    #[cfg(test)]
    Simulated(super::Location<'static>, DType),
}

impl Storage {
    /// Zeros of the same number and type in the same place.
    pub(super) fn zeros_like(&self) -> Self {
        match self {
            Self::Cpu(values) => Self::Cpu(vec![0.0; values.len()]),
            Self::Cuda(storage) => {
                Self::Cuda(CudaStorage::zeros(&storage.gpu, storage.dtype, storage.len))
            }
            #[cfg(test)]
            Self::Simulated(location, dtype) => Self::Simulated(*location, *dtype),
        }
    }
}

/// Elements on a GPU.
///
/// A tensor of zeros has no memory until it is written or read: the first op that adds to a
/// gradient sets it instead, which saves a pass that clears the memory and one that reads it.
/// Copies share their memory until one of them is written.
#[derive(Clone, Debug)]
pub(super) struct CudaStorage {
    pub(super) gpu: Gpu,
    pub(super) dtype: DType,
    len: usize,
    /// Empty while all elements are zero.
    buffer: OnceLock<Arc<Buffer>>,
}

impl CudaStorage {
    pub(super) fn zeros(gpu: &Gpu, dtype: DType, len: usize) -> Self {
        Self { gpu: gpu.clone(), dtype, len, buffer: OnceLock::new() }
    }

    pub(super) fn upload(gpu: &Gpu, dtype: DType, values: &[f32]) -> Result<Self> {
        let storage = Self::zeros(gpu, dtype, values.len());
        let buffer = match dtype {
            DType::F32 => gpu.upload(values)?,
            DType::Bf16 => {
                gpu.upload(&values.iter().map(|&value| bf16::from_f32(value)).collect::<Vec<_>>())?
            }
            DType::I16 => {
                gpu.upload(&values.iter().map(|&value| value as i16).collect::<Vec<_>>())?
            }
        };
        Ok(storage.with(buffer))
    }

    pub(super) fn download(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0_f32; self.len];
        let Some(buffer) = self.buffer.get() else { return Ok(values) };
        match self.dtype {
            DType::F32 => buffer.read(&mut values)?,
            DType::Bf16 => {
                let mut halves = vec![bf16::ZERO; self.len];
                buffer.read(&mut halves)?;
                values.iter_mut().zip(halves).for_each(|(value, half)| *value = half.to_f32());
            }
            DType::I16 => {
                let mut integers = vec![0_i16; self.len];
                buffer.read(&mut integers)?;
                values
                    .iter_mut()
                    .zip(integers)
                    .for_each(|(value, integer)| *value = f32::from(integer));
            }
        }
        Ok(values)
    }

    /// Makes all elements zero and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.buffer = OnceLock::new();
    }

    /// Where the elements can be read.
    pub(super) fn input(&self) -> Result<u64> {
        if let Some(buffer) = self.buffer.get() {
            return Ok(buffer.address());
        }
        let mut zeros = self.allocate()?;
        zeros.fill_bytes(0)?;
        Ok(self.buffer.get_or_init(|| Arc::new(zeros)).address())
    }

    /// Where every element will be written.
    pub(super) fn output(&mut self) -> Result<u64> {
        if self.owned().is_none() {
            let buffer = self.allocate()?;
            self.set(buffer);
        }
        self.input()
    }

    /// Where the elements can be changed.
    pub(super) fn in_place(&mut self) -> Result<u64> {
        self.own()?;
        self.input()
    }

    /// Where a gradient is to be added, and whether there is something to add to.
    pub(super) fn accumulate(&mut self) -> Result<(u64, bool)> {
        let add = self.buffer.get().is_some();
        Ok((if add { self.in_place()? } else { self.output()? }, add))
    }

    fn with(mut self, buffer: Buffer) -> Self {
        self.set(buffer);
        self
    }

    fn set(&mut self, buffer: Buffer) {
        self.buffer = OnceLock::from(Arc::new(buffer));
    }

    fn allocate(&self) -> Result<Buffer> {
        match self.dtype {
            DType::F32 => self.gpu.alloc::<f32>(self.len),
            DType::Bf16 | DType::I16 => self.gpu.alloc::<u16>(self.len),
        }
    }

    /// The buffer, if no copy shares it.
    fn owned(&mut self) -> Option<&mut Buffer> {
        self.buffer.get_mut().and_then(Arc::get_mut)
    }

    /// Leaves a shared buffer to the others.
    fn own(&mut self) -> Result<()> {
        let Some(shared) = self.buffer.get_mut() else { return Ok(()) };
        if Arc::get_mut(shared).is_none() {
            let copy = shared.duplicate()?;
            self.set(copy);
        }
        Ok(())
    }
}
