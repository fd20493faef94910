//! Numbers that a GPU may still be computing.

use crate::cuda::{Buffer, Gpu, Readback};
use crate::{Device, KernelError, Result};

/// One `f64`, the result of a sum. On a GPU the op that returns it only queues the work.
#[derive(Debug)]
pub struct Scalar(Value);

#[derive(Debug)]
enum Value {
    Host(f64),
    Cuda(Buffer<f64>),
}

impl Scalar {
    /// A known number.
    pub fn new(value: f64) -> Self {
        Self(Value::Host(value))
    }

    /// The first element of a buffer.
    pub(crate) fn on_gpu(buffer: Buffer<f64>) -> Self {
        Self(Value::Cuda(buffer))
    }

    /// The number. On a GPU this waits for all queued work; [`Scalars`] waits once for many
    /// numbers.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued before failed.
    pub fn value(&self) -> Result<f64> {
        match &self.0 {
            Value::Host(value) => Ok(*value),
            Value::Cuda(buffer) => {
                let mut value = [0.0];
                buffer.read(&mut value)?;
                Ok(value[0])
            }
        }
    }
}

/// A list of [`Scalar`]s on one device, read as a whole: all losses of an optimizer step.
#[derive(Debug)]
pub struct Scalars(List);

#[derive(Debug)]
enum List {
    Host(Vec<f64>),
    Cuda { gpu: Gpu, buffer: Option<Buffer<f64>>, len: usize },
}

/// Numbers that a first GPU buffer has room for.
const FIRST_CAPACITY: usize = 64;

impl Scalars {
    /// An empty list on a device.
    pub fn new(device: &Device) -> Self {
        Self(match device {
            Device::Cpu => List::Host(Vec::new()),
            Device::Cuda(gpu) => List::Cuda { gpu: gpu.clone(), buffer: None, len: 0 },
        })
    }

    /// Known numbers on the CPU.
    pub(crate) fn known(values: Vec<f64>) -> Self {
        Self(List::Host(values))
    }

    /// Known numbers on a device.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`].
    pub fn from_values(device: &Device, values: Vec<f64>) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self::known(values)),
            Device::Cuda(gpu) => Ok(Self::on_gpu(gpu, gpu.upload(&values)?, values.len())),
        }
    }

    /// The first `len` elements of a buffer.
    pub(crate) fn on_gpu(gpu: &Gpu, buffer: Buffer<f64>, len: usize) -> Self {
        Self(List::Cuda { gpu: gpu.clone(), buffer: Some(buffer), len })
    }

    /// Appends a number. On a GPU the copy is queued.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the number is on another device, [`KernelError::OutOfMemory`].
    pub fn push(&mut self, scalar: &Scalar) -> Result<()> {
        match (&mut self.0, &scalar.0) {
            (List::Host(values), Value::Host(value)) => values.push(*value),
            (List::Cuda { gpu, buffer, len }, Value::Cuda(source)) if source.gpu() == gpu => {
                let list = with_room(gpu, buffer, *len)?;
                list.copy_from(*len, source, 1)?;
                *len += 1;
            }
            (_, source) => {
                let actual = match source {
                    Value::Host(_) => Device::Cpu,
                    Value::Cuda(buffer) => Device::Cuda(buffer.gpu().clone()),
                };
                let expected = self.device();
                return Err(KernelError::device("Scalars::push", "scalar", expected, actual));
            }
        }
        Ok(())
    }

    /// The device of the list.
    pub fn device(&self) -> Device {
        match &self.0 {
            List::Host(_) => Device::Cpu,
            List::Cuda { gpu, .. } => Device::Cuda(gpu.clone()),
        }
    }

    /// Number of numbers.
    pub fn len(&self) -> usize {
        match &self.0 {
            List::Host(values) => values.len(),
            List::Cuda { len, .. } => *len,
        }
    }

    /// Whether the list has no number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts to read the list. On a GPU the copy is queued: work that is queued afterwards runs
    /// while [`PendingScalars::wait`] waits for the numbers.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn start_read(&self) -> Result<PendingScalars> {
        Ok(PendingScalars(match &self.0 {
            List::Host(values) => Pending::Host(values.clone()),
            List::Cuda { buffer: None, .. } => Pending::Host(Vec::new()),
            List::Cuda { buffer: Some(buffer), len, .. } => {
                Pending::Cuda(Readback::start(buffer, *len)?)
            }
        }))
    }

    /// The numbers, if the list is on the CPU.
    pub(crate) fn on_host(&self) -> Option<&[f64]> {
        match &self.0 {
            List::Host(values) => Some(values),
            List::Cuda { .. } => None,
        }
    }

    /// The numbers on a GPU; none for an empty list and on the CPU.
    pub(crate) fn buffer(&self) -> Option<&Buffer<f64>> {
        match &self.0 {
            List::Host(_) => None,
            List::Cuda { buffer, .. } => buffer.as_ref(),
        }
    }
}

/// The buffer of a list of `len` numbers, with room for one more.
fn with_room<'a>(
    gpu: &Gpu,
    buffer: &'a mut Option<Buffer<f64>>,
    len: usize,
) -> Result<&'a mut Buffer<f64>> {
    let full = match buffer.take() {
        Some(buffer_with_room) if len < buffer_with_room.len() => {
            return Ok(buffer.insert(buffer_with_room));
        }
        full => full,
    };
    let mut larger = gpu.alloc((2 * len).max(FIRST_CAPACITY))?;
    if let Some(full) = full {
        larger.copy_from(0, &full, len)?;
    }
    Ok(buffer.insert(larger))
}

/// Numbers on their way to the host.
#[derive(Debug)]
#[must_use = "the numbers come from `wait`"]
pub struct PendingScalars(Pending);

#[derive(Debug)]
enum Pending {
    Host(Vec<f64>),
    Cuda(Readback),
}

impl PendingScalars {
    /// The numbers in the order of the list. On a GPU this waits for the work queued before
    /// [`Scalars::start_read`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if that work failed.
    pub fn wait(self) -> Result<Vec<f64>> {
        match self.0 {
            Pending::Host(values) => Ok(values),
            Pending::Cuda(mut readback) => {
                let (values, _) = readback.wait()?.as_chunks::<{ size_of::<f64>() }>();
                Ok(values.iter().map(|bytes| f64::from_ne_bytes(*bytes)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_the_order_they_were_added() {
        let mut list = Scalars::new(&Device::Cpu);
        assert!(list.is_empty());
        assert!(list.start_read().unwrap().wait().unwrap().is_empty());
        for value in [1.5, f64::INFINITY, -0.0] {
            list.push(&Scalar::new(value)).unwrap();
        }
        assert_eq!(list.len(), 3);
        let values = list.start_read().unwrap().wait().unwrap();
        assert_eq!(values, [1.5, f64::INFINITY, -0.0]);
    }
}
