//! The factor of a gradient.

use std::sync::Arc;

use crate::cuda::Buffer;

/// What a gradient is multiplied by before it is used: a known number, or one that a GPU computes
/// when its turn comes, so that clipping by the global norm does not wait for the norm.
#[derive(Clone, Debug)]
pub struct GradScale(Place);

#[derive(Clone, Debug)]
enum Place {
    Host(f32),
    Cuda(Arc<Buffer>),
}

impl GradScale {
    /// A number that is known.
    pub fn new(value: f32) -> Self {
        Self(Place::Host(value))
    }

    /// The `f32` that a buffer begins with.
    pub(super) fn on_gpu(buffer: Buffer) -> Self {
        Self(Place::Cuda(Arc::new(buffer)))
    }

    /// The number, if it is known.
    pub(crate) fn known(&self) -> Option<f32> {
        match &self.0 {
            Place::Host(value) => Some(*value),
            Place::Cuda(_) => None,
        }
    }

    /// Where a GPU puts it.
    pub(crate) fn buffer(&self) -> Option<&Buffer> {
        match &self.0 {
            Place::Host(_) => None,
            Place::Cuda(buffer) => Some(buffer),
        }
    }
}
