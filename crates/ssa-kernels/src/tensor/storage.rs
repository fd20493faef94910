//! The memory of a tensor.

use std::sync::{Arc, OnceLock};

use half::bf16;

use crate::cuda::{Gpu, Memory};
use crate::host_memory::{collected, copied, zeros};
use crate::{DType, Result};

/// The elements of a tensor.
#[derive(Debug)]
pub(super) enum Storage {
    Cpu(Vec<f32>),
    Cuda(CudaStorage),
    /// No memory: a tensor to test the checks of ops with.
    #[cfg(test)]
    Simulated(super::Location<'static>, DType),
}

impl Storage {
    /// Zeros of the same number and type on the same device.
    pub(super) fn zeros_like(&self) -> Result<Self> {
        Ok(match self {
            Self::Cpu(values) => Self::Cpu(zeros(values.len())?),
            Self::Cuda(storage) => {
                Self::Cuda(CudaStorage::zeros(&storage.gpu, storage.dtype, storage.len))
            }
            #[cfg(test)]
            Self::Simulated(location, dtype) => Self::Simulated(*location, *dtype),
        })
    }

    /// A copy on the same device.
    pub(super) fn try_clone(&self) -> Result<Self> {
        Ok(match self {
            Self::Cpu(values) => Self::Cpu(copied(values)?),
            Self::Cuda(storage) => Self::Cuda(storage.clone()),
            #[cfg(test)]
            Self::Simulated(location, dtype) => Self::Simulated(*location, *dtype),
        })
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
    memory: OnceLock<Arc<Memory>>,
}

impl CudaStorage {
    pub(super) fn zeros(gpu: &Gpu, dtype: DType, len: usize) -> Self {
        Self { gpu: gpu.clone(), dtype, len, memory: OnceLock::new() }
    }

    pub(super) fn upload(gpu: &Gpu, dtype: DType, values: &[f32]) -> Result<Self> {
        let mut storage = Self::zeros(gpu, dtype, values.len());
        let memory = storage.allocate()?;
        match dtype {
            DType::F32 => memory.write(values)?,
            DType::Bf16 => {
                memory.write(&collected(values.iter().map(|&value| bf16::from_f32(value)))?)?
            }
            DType::I16 => memory.write(&collected(values.iter().map(|&value| value as i16))?)?,
        }
        storage.set(memory);
        Ok(storage)
    }

    pub(super) fn download(&self) -> Result<Vec<f32>> {
        let mut values = zeros::<f32>(self.len)?;
        let Some(memory) = self.memory.get() else { return Ok(values) };
        match self.dtype {
            DType::F32 => memory.read(&mut values)?,
            DType::Bf16 => {
                let mut halves = zeros::<bf16>(self.len)?;
                memory.read(&mut halves)?;
                values.iter_mut().zip(halves).for_each(|(value, half)| *value = half.to_f32());
            }
            DType::I16 => {
                let mut integers = zeros::<i16>(self.len)?;
                memory.read(&mut integers)?;
                values
                    .iter_mut()
                    .zip(integers)
                    .for_each(|(value, integer)| *value = f32::from(integer));
            }
        }
        Ok(values)
    }

    /// The same elements on another stream of the device, in memory that both share until one of
    /// them writes.
    pub(super) fn on_stream(&self, gpu: &Gpu) -> Result<Self> {
        let mut storage = Self::zeros(gpu, self.dtype, self.len);
        if let Some(memory) = self.memory.get() {
            storage.set(memory.shared_with(gpu)?);
        }
        Ok(storage)
    }

    /// Makes all elements zero and frees the memory.
    pub(super) fn clear(&mut self) {
        self.memory = OnceLock::new();
    }

    /// Memory from which the elements can be read.
    pub(super) fn input(&self) -> Result<&Memory> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        let mut zeros = self.allocate()?;
        zeros.fill_bytes(0)?;
        Ok(self.memory.get_or_init(|| Arc::new(zeros)))
    }

    /// Memory of this tensor alone, of which every element will be written.
    pub(super) fn output(&mut self) -> Result<&Memory> {
        if !self.owns_memory() {
            let memory = self.allocate()?;
            self.set(memory);
        }
        self.input()
    }

    /// Memory of this tensor alone, in which the elements can be changed.
    pub(super) fn in_place(&mut self) -> Result<&Memory> {
        if !self.owns_memory()
            && let Some(shared) = self.memory.get()
        {
            let copy = shared.duplicate()?;
            self.set(copy);
        }
        self.input()
    }

    /// Memory of this tensor alone to which a gradient is added, and whether there is something to
    /// add to.
    pub(super) fn accumulate(&mut self) -> Result<(&Memory, bool)> {
        let add = self.memory.get().is_some();
        Ok((if add { self.in_place()? } else { self.output()? }, add))
    }

    fn set(&mut self, memory: Memory) {
        self.memory = OnceLock::from(Arc::new(memory));
    }

    fn allocate(&self) -> Result<Memory> {
        let bytes = self.len.checked_mul(self.dtype.size());
        Memory::uninitialized(&self.gpu, bytes.unwrap_or(usize::MAX))
    }

    /// Whether there is memory that no copy shares.
    fn owns_memory(&mut self) -> bool {
        let memory = self.memory.get_mut().and_then(Arc::get_mut);
        memory.is_some_and(|memory| !memory.is_shared())
    }
}
