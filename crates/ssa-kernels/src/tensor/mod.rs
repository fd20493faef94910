//! A dense, row-major tensor.

mod cuda;
mod storage;

use self::storage::{CudaStorage, Storage};
use crate::{DType, Device, KernelError, Result};

/// A dense, contiguous, row-major tensor with one owner: `f32` on the CPU; `bf16` or `f32` on a
/// GPU.
///
/// There are no views and no broadcasting: an op that needs a part of a tensor says so in its
/// signature. This keeps "what does this buffer hold" answerable from the shape alone.
///
/// On a GPU, zeros take no memory until they are written or read, and a copy takes none until one
/// of the two is changed.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    storage: Storage,
}

impl Tensor {
    /// A tensor of zeros on the CPU.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let storage = Storage::Cpu(vec![0.0; shape.iter().product()]);
        Self { shape, storage }
    }

    /// A tensor of zeros. On the CPU every tensor is `f32`, whatever `dtype` says.
    pub fn zeros_on(device: &Device, dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        match device {
            Device::Cpu => Self::zeros(shape),
            Device::Cuda(gpu) => {
                let storage = CudaStorage::zeros(gpu, dtype, shape.iter().product());
                Self { shape, storage: Storage::Cuda(storage) }
            }
        }
    }

    /// A tensor of zeros like `other`: shape, type and device.
    pub fn zeros_like(other: &Self) -> Self {
        Self::zeros_on(&other.device(), other.dtype(), other.shape.clone())
    }

    /// An output buffer of which every element will be written.
    ///
    /// Builds with debug assertions, and this crate's own tests, fill it with NaN so that an
    /// element an op forgets to write cannot pass for a result. On a GPU
    /// [`Gpu::poison_outputs`](crate::Gpu::poison_outputs) does so.
    pub(crate) fn for_output(shape: impl Into<Vec<usize>>) -> Self {
        let mut tensor = Self::zeros(shape);
        if cfg!(any(test, debug_assertions)) {
            tensor.as_mut_slice().fill(f32::NAN);
        }
        tensor
    }

    /// As [`Tensor::for_output`], on a device.
    pub(crate) fn for_output_on(
        device: &Device,
        dtype: DType,
        shape: impl Into<Vec<usize>>,
    ) -> Self {
        match device {
            Device::Cpu => Self::for_output(shape),
            Device::Cuda(_) => Self::zeros_on(device, dtype, shape),
        }
    }

    /// As [`Tensor::for_output`], with the device and type of `other`.
    pub(crate) fn for_output_like(other: &Self, shape: impl Into<Vec<usize>>) -> Self {
        Self::for_output_on(&other.device(), other.dtype(), shape)
    }

    /// Takes ownership of `data` as a tensor of the given shape, on the CPU.
    ///
    /// # Errors
    /// The number of elements is not the product of the shape.
    pub fn from_vec(data: Vec<f32>, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape = shape.into();
        if shape.iter().product::<usize>() != data.len() {
            return Err(KernelError::shape(
                "Tensor::from_vec",
                "data",
                format!("{} elements", data.len()),
                &shape,
            ));
        }
        Ok(Self { shape, storage: Storage::Cpu(data) })
    }

    /// A copy on a device. On a GPU the elements are rounded to `dtype`; on the CPU they are `f32`,
    /// which holds each of the types exactly.
    ///
    /// Between two streams of one GPU the copy shares the memory: the other stream waits for the
    /// work that is queued here, and no byte is copied until one of the two tensors is written.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`], or [`KernelError::Cuda`] if work queued before has failed.
    pub fn to_device(&self, device: &Device, dtype: DType) -> Result<Self> {
        let storage = match device {
            Device::Cpu => Storage::Cpu(self.to_vec()?),
            Device::Cuda(gpu) => match &self.storage {
                Storage::Cpu(values) => Storage::Cuda(CudaStorage::upload(gpu, dtype, values)?),
                Storage::Cuda(storage) if storage.gpu == *gpu && storage.dtype == dtype => {
                    self.storage.clone()
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
                Storage::Cuda(storage) => {
                    Storage::Cuda(CudaStorage::upload(gpu, dtype, &storage.download()?)?)
                }
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
            Storage::Cuda(_) => self.to_device(&Device::Cpu, DType::F32),
        }
    }

    /// The elements in row-major order, copied to the host; on a GPU this waits for all work
    /// before.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued before has failed.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        match &self.storage {
            Storage::Cpu(values) => Ok(values.clone()),
            Storage::Cuda(storage) => storage.download(),
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

    /// Where the tensor lives.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Cpu(_) => Device::Cpu,
            Storage::Cuda(storage) => Device::Cuda(storage.gpu.clone()),
        }
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            Storage::Cpu(_) => DType::F32,
            Storage::Cuda(storage) => storage.dtype,
        }
    }

    /// The elements in row-major order.
    ///
    /// # Panics
    /// If the tensor lives on a GPU: whoever asks has to know, since a copy ([`Tensor::to_vec`])
    /// takes time.
    pub fn as_slice(&self) -> &[f32] {
        match &self.storage {
            Storage::Cpu(values) => values,
            Storage::Cuda(_) => {
                unreachable!("elements of a tensor on a GPU are not in host memory")
            }
        }
    }

    /// The elements in row-major order, writable.
    ///
    /// # Panics
    /// As [`Tensor::as_slice`].
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        match &mut self.storage {
            Storage::Cpu(values) => values,
            Storage::Cuda(_) => {
                unreachable!("elements of a tensor on a GPU are not in host memory")
            }
        }
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshape(mut self, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape = shape.into();
        if shape.iter().product::<usize>() != self.len() {
            return Err(KernelError::shape(
                "Tensor::reshape",
                "self",
                format!("{shape:?}"),
                &self.shape,
            ));
        }
        self.shape = shape;
        Ok(self)
    }

    /// Sets every element to zero. On a GPU this gives the memory back.
    pub fn fill_zero(&mut self) {
        match &mut self.storage {
            Storage::Cpu(values) => values.fill(0.0),
            Storage::Cuda(storage) => storage.clear(),
        }
    }

    /// Sets every element of a tensor on the CPU.
    ///
    /// # Panics
    /// As [`Tensor::as_slice`].
    pub fn fill(&mut self, value: f32) {
        self.as_mut_slice().fill(value);
    }

    /// Adds `other` element by element: residual connections and gradient sums.
    ///
    /// # Errors
    /// The shapes or devices differ, or the GPU refuses.
    pub fn add_assign(&mut self, other: &Self) -> Result<()> {
        const OP: &str = "Tensor::add_assign";
        crate::checks::check_shape(OP, "other", other, &self.shape)?;
        crate::checks::same_device(OP, self, &[("other", other)])?;
        match (&mut self.storage, &other.storage) {
            (Storage::Cpu(values), Storage::Cpu(others)) => {
                crate::cpu::elementwise::add_assign(values, others);
                Ok(())
            }
            (_, Storage::Cuda(storage)) => self.add_assign_on_gpu(&storage.gpu, other),
            (Storage::Cuda(storage), Storage::Cpu(_)) => {
                let gpu = storage.gpu.clone();
                self.add_assign_on_gpu(&gpu, other)
            }
        }
    }
}

/// The same shape, type and elements. Tensors on a GPU are copied to the host for it; one that
/// cannot be is equal to none.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        let same = self.shape == other.shape && self.dtype() == other.dtype();
        same && match (&self.storage, &other.storage) {
            (Storage::Cpu(a), Storage::Cpu(b)) => a == b,
            _ => matches!((self.to_vec(), other.to_vec()), (Ok(a), Ok(b)) if a == b),
        }
    }
}
