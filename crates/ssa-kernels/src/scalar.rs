//! A number that a GPU may still have to compute.

use crate::cuda::elementwise::gather;
use crate::cuda::{Buffer, Gpu, Input};
use crate::{KernelError, Result};

/// One `f64`, the result of a sum. On a GPU it is computed in the order of the stream; only reading
/// it waits.
#[derive(Debug)]
pub struct Scalar(Place);

#[derive(Debug)]
enum Place {
    Host(f64),
    Cuda(Buffer<f64>),
}

impl Scalar {
    /// A number that is known.
    pub fn new(value: f64) -> Self {
        Self(Place::Host(value))
    }

    /// The only element of a buffer.
    pub(crate) fn on_gpu(buffer: Buffer<f64>) -> Self {
        Self(Place::Cuda(buffer))
    }

    /// The number; on a GPU this waits for all work before.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued before has failed.
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

    /// The numbers of several scalars; those on a GPU cost one wait together.
    ///
    /// # Errors
    /// As [`value`](Self::value); [`KernelError::Argument`] if they are on different GPUs.
    pub fn values(scalars: &[&Self]) -> Result<Vec<f64>> {
        let gpu = scalars.iter().find_map(|scalar| match &scalar.0 {
            Place::Host(_) => None,
            Place::Cuda(buffer) => Some(buffer.gpu()),
        });
        let mut computed = Vec::new();
        if let Some(gpu) = gpu {
            let gathered = gather(gpu, &Self::inputs(gpu, scalars)?)?;
            computed.resize(gathered.len(), 0.0);
            gathered.read(&mut computed)?;
        }
        let mut computed = computed.into_iter();
        let value = |scalar: &&Self| match scalar.0 {
            Place::Host(value) => value,
            // There is one for each of these scalars, in their order.
            Place::Cuda(_) => computed.next().unwrap_or(f64::NAN),
        };
        Ok(scalars.iter().map(value).collect())
    }

    /// The number, if it is known.
    pub(crate) fn known(&self) -> Option<f64> {
        match self.0 {
            Place::Host(value) => Some(value),
            Place::Cuda(_) => None,
        }
    }

    /// Those of the scalars that are not known, for a kernel.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if another stream computes one of them.
    pub(crate) fn inputs<'a>(gpu: &Gpu, scalars: &[&'a Self]) -> Result<Vec<Input<'a, f64>>> {
        let input = |scalar: &&'a Self| match &scalar.0 {
            Place::Host(_) => None,
            Place::Cuda(buffer) if buffer.gpu() == gpu => Some(Ok(buffer.input())),
            Place::Cuda(buffer) => {
                Some(Err(KernelError::device("a kernel launch", "scalar", gpu, buffer.gpu())))
            }
        };
        scalars.iter().filter_map(input).collect()
    }
}
