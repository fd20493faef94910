//! Linear maps of inference: packed weights, and results that do not depend on the number of rows.

mod cpu;
pub(crate) mod cuda;
mod panels;
#[cfg(test)]
mod tests;

use crate::contract::{Args, I, LEADING, O};
use crate::host_memory::reserved;
use crate::ops::embedding::embedding_fwd;
use crate::{DType, Device, KernelError, Result, Tensor};
use panels::Panels;

/// The weights of one or several linear maps of the same input, laid out for [`linear_rows_fwd`].
pub struct LinearWeight {
    device: Device,
    inputs: usize,
    /// Outputs of each map.
    outputs: Vec<usize>,
    storage: Storage,
}

enum Storage {
    /// For each map, panels of outputs.
    Host(Vec<Panels>),
    /// All matrices, one below the other `[O.., I]`.
    Device(Tensor),
}

impl LinearWeight {
    /// Packs the matrices `[O, I]` of maps that share their input, rounded to `dtype`: `f32` or
    /// `bf16` on the CPU, `bf16` on a GPU.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there is no map, if matrices differ in type, device or I, or if
    /// the device has no such type; [`KernelError::HostMemory`] or [`KernelError::OutOfMemory`].
    pub fn new(weights: &[&Tensor], dtype: DType) -> Result<Self> {
        const OP: &str = "LinearWeight::new";
        let [first, ..] = weights else {
            return Err(KernelError::value(OP, "weights", "at least 1 matrix", "none"));
        };
        let mut outputs = Vec::with_capacity(weights.len());
        for &weight in weights {
            let table = Args::new(OP).act("weights", first, [LEADING, I]);
            let checked = table.act("weights", weight, [O, I]).check();
            outputs.push(checked?.sizes([O])?[0]);
        }
        let device = first.device();
        if dtype != DType::Bf16 && dtype != device.dtype() {
            let expected = format!("{} or {} on {device}", device.dtype(), DType::Bf16);
            return Err(KernelError::value(OP, "dtype", expected, dtype));
        }
        let inputs = first.last_dim();
        let storage = match &device {
            Device::Cuda(gpu) => Storage::Device(Tensor::stacked(gpu, weights)?),
            Device::Cpu => {
                let panels =
                    weights.iter().map(|weight| Panels::new(weight.as_slice()?, inputs, dtype));
                Storage::Host(panels.collect::<Result<_>>()?)
            }
        };
        Ok(Self { device, inputs, outputs, storage })
    }

    /// The smallest type that holds every element of these tensors exactly.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued on the GPU before has failed.
    pub fn exact_dtype(weights: &[&Tensor]) -> Result<DType> {
        for weight in weights {
            let exact = |value: &f32| value.to_bits().trailing_zeros() >= 16;
            if weight.dtype() != DType::Bf16 && !weight.to_vec()?.iter().all(exact) {
                return Ok(DType::F32);
            }
        }
        Ok(DType::Bf16)
    }

    /// I.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// O of each map.
    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    /// Bytes that the product of one row reads.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Host(panels) => panels.iter().map(Panels::bytes).sum(),
            Storage::Device(matrix) => matrix.len() * matrix.dtype().size(),
        }
    }

    /// Rows of the first matrix, `[1, ids, I]` in `f32` (`bf16` on a GPU): an embedding.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if an id is not less than O; [`KernelError::HostMemory`] or
    /// [`KernelError::OutOfMemory`].
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        const OP: &str = "LinearWeight::rows";
        let outputs = self.outputs[0];
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= outputs) {
            return Err(KernelError::value(OP, "ids", format!("less than {outputs}"), id));
        }
        match &self.storage {
            Storage::Host(panels) => {
                let mut rows = reserved(ids.len().saturating_mul(self.inputs))?;
                ids.iter().for_each(|&id| panels[0].append_row(id as usize, &mut rows));
                Tensor::from_vec(rows, [1, ids.len(), self.inputs])
            }
            Storage::Device(matrix) => embedding_fwd(ids, matrix, [1, ids.len()]),
        }
    }

    /// The matrices in the memory of a GPU, one below the other.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if they are on the CPU.
    pub(crate) fn matrix(&self, op: &'static str) -> Result<&Tensor> {
        match &self.storage {
            Storage::Device(matrix) => Ok(matrix),
            Storage::Host(_) => Err(KernelError::device(op, "weight", "a GPU", &self.device)),
        }
    }
}

/// `y = x Wᵀ` for every map of `weight`.
///
/// # Shapes
/// `x` `[.., I]`; returns `[.., O]` for each map.
///
/// # Dtypes
/// `f32`; weights may be `bf16`, which is exact for checkpoints stored in it. On a GPU `bf16`,
/// accumulated in `f32`.
///
/// # Edge cases
/// No rows: empty results.
///
/// # Errors
/// [`KernelError::Argument`] if `x` does not have this shape or type, or is on another device.
///
/// # Determinism
/// On the CPU every element is one chain of fused multiply-adds over I in ascending order, from
/// zero. So a row has the same bits whatever other rows the call has, for any number of threads and
/// any width of vectors. On a GPU this holds for calls of at most 64 rows, for any other rows;
/// calls with more are bitwise reproducible as [`linear_fwd`](super::linear_fwd) is.
///
/// # Source
/// Every projection of the Llama block.
pub fn linear_rows_fwd(x: &Tensor, weight: &LinearWeight) -> Result<Vec<Tensor>> {
    const OP: &str = "linear_rows_fwd";
    let table = Args::new(OP).act("x", x, [LEADING, I]).size("weight", I, weight.inputs);
    let checked = table.check()?;
    if weight.device != *checked.device() {
        return Err(KernelError::device(OP, "weight", checked.device(), &weight.device));
    }
    let leading = &x.shape()[..x.shape().len() - 1];
    let output = |&outputs: &usize| Tensor::for_output_like(x, [leading, &[outputs]].concat());
    let mut out = weight.outputs.iter().map(output).collect::<Result<Vec<_>>>()?;
    match &weight.storage {
        Storage::Host(panels) => {
            let slices = out.iter_mut().map(Tensor::as_mut_slice).collect::<Result<Vec<_>>>()?;
            cpu::forward(x.as_slice()?, weight.inputs, panels, slices);
        }
        Storage::Device(matrix) => {
            if let Device::Cuda(gpu) = checked.device() {
                cuda::forward(gpu, x, matrix, &mut out)?;
            }
        }
    }
    Ok(out)
}
