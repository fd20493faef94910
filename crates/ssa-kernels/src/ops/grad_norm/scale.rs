//! The factor that multiplies gradients.

use std::sync::Arc;

use crate::cuda::{Buffer, Gpu, Input};
use crate::{KernelError, Result};

/// The factor that multiplies a gradient before the optimizer uses it: a number of the host, or one
/// that a GPU computes in stream order, so that the host does not wait for the norm to clip by it.
#[derive(Clone, Debug)]
pub struct GradScale(Factor);

#[derive(Clone, Debug)]
enum Factor {
    Host(f32),
    Cuda(Arc<Buffer<f32>>),
}

impl GradScale {
    /// A number of the host.
    pub fn new(value: f32) -> Self {
        Self(Factor::Host(value))
    }

    /// The first `f32` of a buffer.
    pub(super) fn on_gpu(buffer: Buffer<f32>) -> Self {
        Self(Factor::Cuda(Arc::new(buffer)))
    }

    /// The number, if the host has it.
    pub(crate) fn known(&self) -> Option<f32> {
        match &self.0 {
            Factor::Host(value) => Some(*value),
            Factor::Cuda(_) => None,
        }
    }

    /// The number on a GPU, for a kernel on the same stream; None if the host has it.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if another stream computes it.
    pub(crate) fn input(&self, op: &'static str, gpu: &Gpu) -> Result<Option<Input<'_, f32>>> {
        match &self.0 {
            Factor::Host(_) => Ok(None),
            Factor::Cuda(buffer) if buffer.gpu() == gpu => Ok(Some(buffer.input())),
            Factor::Cuda(buffer) => Err(KernelError::device(op, "grad_scale", gpu, buffer.gpu())),
        }
    }
}
