//! The sum of two tensors.

use crate::contract::{Args, LEADING};
use crate::cpu::elementwise;
use crate::{Device, Result, Tensor};

impl Tensor {
    /// Adds `other` element by element: residual connections and gradient sums.
    ///
    /// # Shapes
    /// Both tensors have the same shape.
    ///
    /// # Dtypes
    /// `f32`, or `bf16` on a GPU; both tensors have the same type.
    ///
    /// # Errors
    /// [`KernelError::Argument`](crate::KernelError::Argument) if shapes, types or devices differ.
    ///
    /// # Determinism
    /// Exact up to the rounding of each sum: elements are independent.
    pub fn add_assign(&mut self, other: &Self) -> Result<()> {
        let call = Args::new("Tensor::add_assign")
            .float("self", self, [LEADING])
            .typed("other", other, self.dtype(), [LEADING])
            .check()?;
        match call.device() {
            Device::Cuda(gpu) => self.add_assign_on_gpu(gpu, other),
            Device::Cpu => {
                elementwise::add_assign(self.as_mut_slice()?, other.as_slice()?);
                Ok(())
            }
        }
    }
}
