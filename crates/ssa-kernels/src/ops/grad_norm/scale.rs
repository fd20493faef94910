//! The factor of a gradient.

use std::sync::Arc;

use crate::cuda::{Buffer, Gpu, Input};
use crate::{KernelError, Result};

/// What a gradient is multiplied by before it is used: a known number, or one that a GPU computes
/// when its turn comes, so that clipping by the global norm does not wait for the norm.
#[derive(Clone, Debug)]
pub struct GradScale(Place);

#[derive(Clone, Debug)]
enum Place {
    Host(f32),
    Cuda(Arc<Buffer<f32>>),
}

impl GradScale {
    /// A number that is known.
    pub fn new(value: f32) -> Self {
        Self(Place::Host(value))
    }

    /// The `f32` that a buffer begins with.
    pub(super) fn on_gpu(buffer: Buffer<f32>) -> Self {
        Self(Place::Cuda(Arc::new(buffer)))
    }

    /// The number, if it is known.
    pub(crate) fn known(&self) -> Option<f32> {
        match &self.0 {
            Place::Host(value) => Some(*value),
            Place::Cuda(_) => None,
        }
    }

    /// The number on a GPU, for a kernel on the same stream; None if it is known.
    ///
    /// # Errors
    /// [`KernelError::Device`] if another stream computes it.
    pub(crate) fn input(&self, gpu: &Gpu) -> Result<Option<Input<'_, f32>>> {
        match &self.0 {
            Place::Host(_) => Ok(None),
            Place::Cuda(buffer) if buffer.gpu() == gpu => Ok(Some(buffer.input())),
            Place::Cuda(buffer) => Err(KernelError::Device {
                op: "a kernel launch",
                argument: "grad_scale",
                expected: gpu.to_string(),
                actual: buffer.gpu().to_string(),
            }),
        }
    }
}
