//! A dense, row-major tensor.

mod cuda;
mod elements;
mod location;
mod storage;
#[cfg(test)]
mod tests;

pub(crate) use self::location::Location;

use std::ops::Range;

use self::storage::{CudaStorage, Storage};
use crate::host_memory::{copied, zeros};
use crate::{DType, Device, KernelError, Result};

/// A dense, contiguous, row-major tensor with one owner: `f32` on the CPU; `bf16`, `f32` or `i16`
/// on a GPU.
///
/// There are no views and no broadcasting: an op that needs a part of a tensor says so in its
/// signature. So the shape alone says what a buffer holds.
///
/// On a GPU, zeros take no memory until they are written or read, and a copy takes none until one
/// of the two is changed. A copy takes memory and so can fail: there is no `Clone`, but
/// [`Tensor::try_clone`].
///
/// A tensor is never larger than `isize::MAX` bytes, and neither is one with any of its axes: so
/// products of sizes do not overflow. The default is a tensor without elements.
#[derive(Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    storage: Storage,
}

impl Default for Tensor {
    fn default() -> Self {
        Self { shape: vec![0], storage: Storage::Cpu(Vec::new()) }
    }
}

impl Tensor {
    /// A tensor of zeros on the CPU.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the elements would take more than `isize::MAX` bytes,
    /// [`KernelError::HostMemory`] if the system does not have that many.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Result<Self> {
        Self::zeros_on(&Device::Cpu, DType::F32, shape)
    }

    /// A tensor of zeros on a device.
    ///
    /// # Errors
    /// As [`Tensor::zeros`], and if the device does not hold elements of this type: the CPU holds
    /// `f32` only.
    pub fn zeros_on(device: &Device, dtype: DType, shape: impl Into<Vec<usize>>) -> Result<Self> {
        const OP: &str = "Tensor::zeros_on";
        let shape = shape.into();
        let len = element_count(OP, dtype, &shape)?;
        let storage = match device {
            Device::Cpu => {
                check_host_dtype(OP, dtype)?;
                Storage::Cpu(zeros(len)?)
            }
            Device::Cuda(gpu) => Storage::Cuda(CudaStorage::zeros(gpu, dtype, len)),
        };
        Ok(Self { shape, storage })
    }

    /// A tensor of zeros like `other`: shape, type and device.
    ///
    /// # Errors
    /// [`KernelError::HostMemory`] on the CPU. On a GPU the zeros take no memory yet.
    pub fn zeros_like(other: &Self) -> Result<Self> {
        Ok(Self { shape: other.shape.clone(), storage: other.storage.zeros_like()? })
    }

    /// A copy on the same device. On a GPU the two share their memory until one is changed.
    ///
    /// # Errors
    /// [`KernelError::HostMemory`] on the CPU.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { shape: self.shape.clone(), storage: self.storage.try_clone()? })
    }

    /// An output buffer of which the op will write every element.
    ///
    /// Builds with debug assertions, and the tests of this crate, fill it with NaN, so that an
    /// element that an op forgets to write cannot pass for a result. On a GPU
    /// [`Gpu::poison_outputs`](crate::Gpu::poison_outputs) does so.
    pub(crate) fn for_output_on(
        device: &Device,
        dtype: DType,
        shape: impl Into<Vec<usize>>,
    ) -> Result<Self> {
        let mut tensor = Self::zeros_on(device, dtype, shape)?;
        if cfg!(any(test, debug_assertions))
            && let Storage::Cpu(values) = &mut tensor.storage
        {
            values.fill(f32::NAN);
        }
        Ok(tensor)
    }

    /// As [`Tensor::for_output_on`], with the device and type of `other`.
    pub(crate) fn for_output_like(other: &Self, shape: impl Into<Vec<usize>>) -> Result<Self> {
        Self::for_output_on(&other.device(), other.dtype(), shape)
    }

    /// Takes ownership of `data` as a tensor of the given shape, on the CPU.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the number of elements is not the product of the shape.
    pub fn from_vec(data: Vec<f32>, shape: impl Into<Vec<usize>>) -> Result<Self> {
        const OP: &str = "Tensor::from_vec";
        let shape = shape.into();
        if element_count(OP, DType::F32, &shape)? != data.len() {
            let expected = format!("a shape of {} elements", data.len());
            return Err(KernelError::shape(OP, "shape", expected, &shape));
        }
        Ok(Self { shape, storage: Storage::Cpu(data) })
    }

    /// A tensor that claims a device and a type that it does not have, to test the checks of ops.
    /// It has no elements in host memory.
    #[cfg(test)]
    pub(crate) fn simulated(
        location: Location<'static>,
        dtype: DType,
        shape: impl Into<Vec<usize>>,
    ) -> Self {
        Self { shape: shape.into(), storage: Storage::Simulated(location, dtype) }
    }

    /// A copy on a device. On a GPU the elements are rounded to `dtype`.
    ///
    /// Between two streams of one GPU the copy shares the memory: the other stream waits for the
    /// work that is queued here, and no byte is copied until one of the two tensors is written.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the device does not hold elements of this type (the CPU holds
    /// `f32`, into which every type converts exactly), [`KernelError::OutOfMemory`], or
    /// [`KernelError::Cuda`] if work queued before has failed.
    pub fn to_device(&self, device: &Device, dtype: DType) -> Result<Self> {
        let storage = match device {
            Device::Cpu => {
                check_host_dtype("Tensor::to_device", dtype)?;
                Storage::Cpu(self.to_vec()?)
            }
            Device::Cuda(gpu) => match &self.storage {
                Storage::Cuda(storage) if storage.gpu == *gpu && storage.dtype == dtype => {
                    self.storage.try_clone()?
                }
                Storage::Cuda(storage) if storage.gpu == *gpu => {
                    match self.converted_on_gpu(gpu, dtype)? {
                        Some(converted) => return Ok(converted),
                        None => {
                            Storage::Cuda(CudaStorage::upload(gpu, dtype, &storage.download()?)?)
                        }
                    }
                }
                Storage::Cuda(storage) if storage.gpu.shares_device(gpu) => {
                    let storage = Storage::Cuda(storage.on_stream(gpu)?);
                    return Self { shape: self.shape.clone(), storage }.to_device(device, dtype);
                }
                _ => Storage::Cuda(
                    self.with_host_values(|values| CudaStorage::upload(gpu, dtype, values))?,
                ),
            },
        };
        Ok(Self { shape: self.shape.clone(), storage })
    }

    /// The tensor on the CPU: itself if it is there already.
    ///
    /// # Errors
    /// As [`Tensor::to_device`].
    pub fn into_host(self) -> Result<Self> {
        match &self.storage {
            Storage::Cpu(_) => Ok(self),
            _ => self.to_device(&Device::Cpu, DType::F32),
        }
    }

    /// The elements in row-major order, copied to the host; on a GPU this waits for all work
    /// queued before.
    ///
    /// # Errors
    /// [`KernelError::HostMemory`], or [`KernelError::Cuda`] if work queued before has failed.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        match &self.storage {
            Storage::Cuda(storage) => storage.download(),
            _ => copied(self.as_slice()?),
        }
    }

    /// As [`Tensor::to_vec`], without a copy on the CPU.
    ///
    /// # Errors
    /// As [`Tensor::to_vec`].
    pub fn into_vec(self) -> Result<Vec<f32>> {
        match self.storage {
            Storage::Cpu(values) => Ok(values),
            _ => self.to_vec(),
        }
    }

    /// Calls `use_values` with the elements in row-major order; on a GPU with a copy of them.
    fn with_host_values<R>(&self, use_values: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
        match &self.storage {
            Storage::Cuda(storage) => use_values(&storage.download()?),
            _ => use_values(self.as_slice()?),
        }
    }

    /// The sizes of all axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the last axis (1 for a scalar).
    pub fn last_dim(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of rows when all axes but the last are folded into one.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// The device that holds the elements.
    pub fn device(&self) -> Device {
        self.location().device().unwrap_or(Device::Cpu)
    }

    /// The device that holds the elements, borrowed.
    pub(crate) fn location(&self) -> Location<'_> {
        match &self.storage {
            Storage::Cpu(_) => Location::Cpu,
            Storage::Cuda(storage) => Location::Cuda(&storage.gpu),
            #[cfg(test)]
            Storage::Simulated(location, _) => *location,
        }
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            Storage::Cpu(_) => DType::F32,
            Storage::Cuda(storage) => storage.dtype,
            #[cfg(test)]
            Storage::Simulated(_, dtype) => *dtype,
        }
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if they are on a GPU: use [`Tensor::to_vec`], which copies them.
    pub fn as_slice(&self) -> Result<&[f32]> {
        match &self.storage {
            Storage::Cpu(values) => Ok(values),
            _ => Err(self.not_on("Tensor::as_slice", Device::Cpu)),
        }
    }

    /// The elements in row-major order, writable.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if they are on a GPU.
    pub fn as_mut_slice(&mut self) -> Result<&mut [f32]> {
        let elsewhere = self.not_on("Tensor::as_mut_slice", Device::Cpu);
        match &mut self.storage {
            Storage::Cpu(values) => Ok(values),
            _ => Err(elsewhere),
        }
    }

    /// Whether two tensors have the same shape, type and elements (a NaN equals nothing). Tensors
    /// on a GPU are copied to the host, which waits for all work queued before.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued before has failed.
    pub fn same_elements(&self, other: &Self) -> Result<bool> {
        if self.shape != other.shape || self.dtype() != other.dtype() {
            return Ok(false);
        }
        self.with_host_values(|ours| other.with_host_values(|theirs| Ok(ours == theirs)))
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the number of elements differs.
    pub fn reshape(mut self, shape: impl Into<Vec<usize>>) -> Result<Self> {
        const OP: &str = "Tensor::reshape";
        let shape = shape.into();
        if element_count(OP, self.dtype(), &shape)? != self.len() {
            let expected = format!("a shape of {} elements", self.len());
            return Err(KernelError::shape(OP, "shape", expected, &shape));
        }
        self.shape = shape;
        Ok(self)
    }

    /// A copy of some rows, where all axes but the last are folded into one: `[rows, last axis]`.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there are no such rows.
    pub fn rows_range(&self, rows: Range<usize>) -> Result<Self> {
        if rows.start > rows.end || rows.end > self.rows() {
            let expected = format!("rows of 0..{}", self.rows());
            let actual = format!("{rows:?}");
            return Err(KernelError::value("Tensor::rows_range", "rows", expected, actual));
        }
        let row = self.last_dim();
        match &self.storage {
            Storage::Cuda(_) => self.rows_on_gpu(rows),
            _ => {
                let values = &self.as_slice()?[rows.start * row..rows.end * row];
                Self::from_vec(copied(values)?, [rows.len(), row])
            }
        }
    }

    /// Sets every element to zero. On a GPU this gives the memory back.
    pub fn fill_zero(&mut self) {
        match &mut self.storage {
            Storage::Cpu(values) => values.fill(0.0),
            Storage::Cuda(storage) => storage.clear(),
            #[cfg(test)]
            Storage::Simulated(..) => {}
        }
    }

    pub(super) fn not_on(&self, op: &'static str, expected: impl ToString) -> KernelError {
        KernelError::device(op, "self", expected, self.location())
    }
}

/// The number of elements of an array with axes of these sizes, if the bytes of the array and of
/// each of its parts can be addressed: so a product of some of the sizes does not overflow either.
pub(crate) fn addressable_len(element_bytes: usize, sizes: &[usize]) -> Option<usize> {
    sizes
        .iter()
        .try_fold(element_bytes, |bytes, &size| bytes.checked_mul(size.max(1)))
        .filter(|&bytes| isize::try_from(bytes).is_ok())?;
    Some(sizes.iter().product())
}

/// The number of elements of a shape that memory can hold.
fn element_count(op: &'static str, dtype: DType, shape: &[usize]) -> Result<usize> {
    addressable_len(dtype.size(), shape).ok_or_else(|| {
        let expected = format!("at most {} bytes of {dtype}", isize::MAX);
        KernelError::shape(op, "shape", expected, shape)
    })
}

/// Refuses element types that tensors on the CPU do not hold.
fn check_host_dtype(op: &'static str, dtype: DType) -> Result<()> {
    let expected = Device::Cpu.dtype();
    if dtype == expected {
        return Ok(());
    }
    Err(KernelError::value(op, "dtype", format!("{expected} on {}", Device::Cpu), dtype))
}
