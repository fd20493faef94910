//! The factor that multiplies gradients.

use std::sync::Arc;

use crate::cuda::Buffer;

/// The factor that multiplies a gradient before the optimizer uses it: a number of the host, or one
/// that a GPU computes in stream order, so that the host does not wait for the norm to clip by it.
#[derive(Clone, Debug)]
pub struct GradScale(Factor);

#[derive(Clone, Debug)]
enum Factor {
    Host(f32),
    Cuda(Arc<Buffer>),
}

impl GradScale {
    /// A number of the host.
    pub fn new(value: f32) -> Self {
        Self(Factor::Host(value))
    }

    /// The first `f32` of a buffer.
    pub(super) fn on_gpu(buffer: Buffer) -> Self {
        Self(Factor::Cuda(Arc::new(buffer)))
    }

    /// The number, if the host has it.
    pub(crate) fn known(&self) -> Option<f32> {
        match &self.0 {
            Factor::Host(value) => Some(*value),
            Factor::Cuda(_) => None,
        }
    }

    /// The buffer that a GPU writes it to.
    pub(crate) fn buffer(&self) -> Option<&Buffer> {
        match &self.0 {
            Factor::Host(_) => None,
            Factor::Cuda(buffer) => Some(buffer),
        }
    }
}
