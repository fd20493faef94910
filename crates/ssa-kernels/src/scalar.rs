//! A number that may still be on its way from a GPU.

use crate::Result;
use crate::cuda::Buffer;

/// One `f64`, the result of a sum. On a GPU it is computed when its turn comes; only asking for it
/// waits.
#[derive(Debug)]
pub struct Scalar(Place);

#[derive(Debug)]
enum Place {
    Host(f64),
    Cuda(Buffer),
}

impl Scalar {
    /// A number that is known.
    pub fn new(value: f64) -> Self {
        Self(Place::Host(value))
    }

    /// The `f64` that a buffer begins with.
    pub(crate) fn on_gpu(buffer: Buffer) -> Self {
        Self(Place::Cuda(buffer))
    }

    /// The number; on a GPU this waits for all work before.
    ///
    /// # Errors
    /// [`KernelError::Cuda`](crate::KernelError::Cuda) if work queued before has failed.
    pub fn value(&self) -> Result<f64> {
        match &self.0 {
            Place::Host(value) => Ok(*value),
            Place::Cuda(buffer) => {
                let mut value = [0.0];
                buffer.read(&mut value)?;
                Ok(value[0])
            }
        }
    }
}
