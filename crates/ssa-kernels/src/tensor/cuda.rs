//! Tensors on a GPU: their elements as kernels take them, and the ops of this module.

use std::ops::Range;

use half::bf16;

use super::Tensor;
use super::storage::{CudaStorage, Storage};
use crate::cuda::elementwise::{AddAssign, ToBf16, ToF32, resize_rows};
use crate::cuda::matmul::{GpuMatrix, GpuMatrixMut, Rows};
use crate::cuda::{Element, Gpu, Gradient, Input, Memory, Output, Parameters};
use crate::{DType, Device, KernelError, Result};

/// Where the addresses of tensors are used.
const LAUNCH: &str = "a kernel launch";

/// A type that elements of tensors have on a GPU.
pub(crate) trait TensorElement: Element {
    const DTYPE: DType;
}

impl TensorElement for f32 {
    const DTYPE: DType = DType::F32;
}

impl TensorElement for bf16 {
    const DTYPE: DType = DType::Bf16;
}

impl TensorElement for i16 {
    const DTYPE: DType = DType::I16;
}

/// The elements as kernels take them; only ops that have dispatched on the device ask for them.
/// The kernel's parameter says the type, and a tensor of another type is refused.
impl Tensor {
    /// The elements, for a kernel that reads them.
    pub(crate) fn input<T: TensorElement>(&self) -> Result<Input<'_, T>> {
        Ok(self.typed::<T>()?.input()?.input())
    }

    /// The elements, for a kernel that writes all of them.
    pub(crate) fn output<T: TensorElement>(&mut self) -> Result<Output<'_, T>> {
        Ok(self.typed_mut::<T>()?.output()?.output())
    }

    /// The elements, for a kernel that changes some of them in place.
    pub(crate) fn in_place<T: TensorElement>(&mut self) -> Result<Output<'_, T>> {
        Ok(self.typed_mut::<T>()?.in_place()?.output())
    }

    /// The elements of a gradient, for a kernel that adds to it or, if it is still zero, sets every
    /// element.
    pub(crate) fn gradient<T: TensorElement>(&mut self) -> Result<Gradient<'_, T>> {
        let (memory, add) = self.typed_mut::<T>()?.accumulate()?;
        Ok(Gradient::new(memory.output(), add))
    }

    /// The memory of the elements, to read from.
    pub(crate) fn device_memory(&self) -> Result<&Memory> {
        self.cuda_storage()?.input()
    }

    /// The memory of the elements, all of which will be written.
    pub(crate) fn device_memory_mut(&mut self) -> Result<&Memory> {
        self.cuda_storage_mut()?.output()
    }

    /// The memory of the elements, to change some of them.
    pub(crate) fn device_memory_in_place(&mut self) -> Result<&Memory> {
        self.cuda_storage_mut()?.in_place()
    }

    fn typed<T: TensorElement>(&self) -> Result<&CudaStorage> {
        self.check_dtype(T::DTYPE)?;
        self.cuda_storage()
    }

    fn typed_mut<T: TensorElement>(&mut self) -> Result<&mut CudaStorage> {
        self.check_dtype(T::DTYPE)?;
        self.cuda_storage_mut()
    }

    fn check_dtype(&self, dtype: DType) -> Result<()> {
        if self.dtype() == dtype {
            return Ok(());
        }
        Err(KernelError::dtype(LAUNCH, "tensor", dtype, self.dtype()))
    }

    pub(super) fn cuda_storage(&self) -> Result<&CudaStorage> {
        match &self.storage {
            Storage::Cuda(storage) => Ok(storage),
            _ => Err(self.not_on(LAUNCH, "a GPU")),
        }
    }

    pub(super) fn cuda_storage_mut(&mut self) -> Result<&mut CudaStorage> {
        let elsewhere = self.not_on(LAUNCH, "a GPU");
        match &mut self.storage {
            Storage::Cuda(storage) => Ok(storage),
            _ => Err(elsewhere),
        }
    }
}

/// The elements as matrices of `cuda::matmul`.
impl Tensor {
    /// A matrix that is read.
    pub(crate) fn matrix(&self, rows: impl Into<Rows>) -> Result<GpuMatrix<'_>> {
        GpuMatrix::new(self.cuda_storage()?.input()?, self.dtype(), rows.into())
    }

    /// A matrix that is the whole tensor and is overwritten.
    pub(crate) fn output_matrix(&mut self, sizes: [usize; 2]) -> Result<GpuMatrixMut<'_>> {
        let dtype = self.dtype();
        GpuMatrixMut::new(self.cuda_storage_mut()?.output()?, dtype, sizes.into(), false)
    }

    /// A matrix that is the whole tensor, to which a gradient is added.
    pub(crate) fn gradient_matrix(&mut self, sizes: [usize; 2]) -> Result<GpuMatrixMut<'_>> {
        let dtype = self.dtype();
        let (memory, add) = self.cuda_storage_mut()?.accumulate()?;
        GpuMatrixMut::new(memory, dtype, sizes.into(), add)
    }

    /// Some rows of the tensor, to which a gradient is added.
    pub(crate) fn gradient_rows(&mut self, rows: Rows) -> Result<GpuMatrixMut<'_>> {
        let dtype = self.dtype();
        GpuMatrixMut::new(self.cuda_storage_mut()?.in_place()?, dtype, rows, true)
    }
}

impl Tensor {
    /// `self += other` for tensors of one shape, type and GPU.
    pub(crate) fn add_assign_on_gpu(&mut self, gpu: &Gpu, other: &Self) -> Result<()> {
        self.add_elements_on_gpu(gpu, other, 0)
    }

    /// `self += other[start..]` for tensors of one type and GPU; the caller has checked the range,
    /// and that `start` is aligned.
    pub(super) fn add_elements_on_gpu(
        &mut self,
        gpu: &Gpu,
        other: &Self,
        start: usize,
    ) -> Result<()> {
        match self.dtype() {
            DType::F32 => self.add_typed::<f32>(gpu, other, start),
            DType::Bf16 => self.add_typed::<bf16>(gpu, other, start),
            DType::I16 => {
                Err(KernelError::value("Tensor::add_assign", "self", "f32 or bf16", DType::I16))
            }
        }
    }

    fn add_typed<T: TensorElement>(&mut self, gpu: &Gpu, other: &Self, start: usize) -> Result<()>
    where
        for<'a> AddAssign<'a, T>: Parameters,
    {
        gpu.launch_pieces(self.len(), |len| {
            let other = other.typed::<T>()?.input()?.input_from(start);
            Ok(AddAssign { x: self.in_place::<T>()?, other, len })
        })
    }

    /// A copy on the same GPU in another floating-point type; `None` if either type is not one.
    pub(super) fn converted_on_gpu(&self, gpu: &Gpu, dtype: DType) -> Result<Option<Self>> {
        let mut out = Self::for_output_on(&Device::Cuda(gpu.clone()), dtype, self.shape())?;
        match (self.dtype(), dtype) {
            (DType::F32, DType::Bf16) => gpu.launch_pieces(self.len(), |len| {
                Ok(ToBf16 { x: self.input()?, out: out.output()?, len })
            })?,
            (DType::Bf16, DType::F32) => gpu.launch_pieces(self.len(), |len| {
                Ok(ToF32 { x: self.input()?, out: out.output()?, len })
            })?,
            _ => return Ok(None),
        }
        Ok(Some(out))
    }

    /// A copy of some rows on the same GPU, as a tensor `[rows, last axis]`.
    pub(super) fn rows_on_gpu(&self, rows: Range<usize>) -> Result<Self> {
        let row = self.last_dim() * self.dtype().size();
        let mut out = Self::for_output_like(self, [rows.len(), self.last_dim()])?;
        let target = out.cuda_storage_mut()?.output()?;
        let source = self.cuda_storage()?.input()?;
        target.copy_from(0, (source, rows.start * row), rows.len() * row)?;
        Ok(out)
    }

    /// Matrices of the same row length and type, one below the other; a single one shares its
    /// memory.
    pub(crate) fn stacked(gpu: &Gpu, matrices: &[&Self]) -> Result<Self> {
        if let [matrix] = matrices {
            return matrix.try_clone();
        }
        let rows = matrices.iter().map(|matrix| matrix.rows()).sum();
        let inputs = matrices.first().map_or(0, |matrix| matrix.last_dim());
        let dtype = matrices.first().map_or(DType::Bf16, |matrix| matrix.dtype());
        let mut stacked = Self::for_output_on(&Device::Cuda(gpu.clone()), dtype, [rows, inputs])?;
        let target = stacked.cuda_storage_mut()?.output()?;
        let mut offset = 0;
        for matrix in matrices {
            let source = matrix.cuda_storage()?.input()?;
            target.copy_from(offset, (source, 0), source.bytes())?;
            offset += source.bytes();
        }
        Ok(stacked)
    }

    /// A copy on the same GPU whose last axis has another size: longer rows end in zeros, shorter
    /// ones are the beginning.
    pub(crate) fn with_row_len(&self, gpu: &Gpu, row: usize) -> Result<Self> {
        let mut shape = self.shape().to_vec();
        let from = shape.pop().unwrap_or(1);
        shape.push(row);
        let mut out = Self::for_output_like(self, shape)?;
        let len = out.len();
        match self.dtype() {
            DType::F32 => {
                resize_rows::<f32>(gpu, self.input()?, out.output()?, [from, row], len)?;
            }
            DType::Bf16 => {
                resize_rows::<bf16>(gpu, self.input()?, out.output()?, [from, row], len)?;
            }
            DType::I16 => {
                let expected = "f32 or bf16";
                return Err(KernelError::value("with_row_len", "x", expected, DType::I16));
            }
        }
        Ok(out)
    }
}
