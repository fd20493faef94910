//! Random tensors, fast enough for the largest sizes.

use ssa_kernels::{Device, KernelError, Tensor};
use ssa_testkit::Random;

/// A prime, so that rows of any width begin at another place each time.
const LENGTH: usize = (1 << 22) - 3;

/// Standard normal numbers without end: some millions of them over and over.
pub(crate) struct Normal {
    values: Vec<f32>,
    next: usize,
}

impl Normal {
    pub(crate) fn new() -> Self {
        Self { values: Random::new(1).normal(LENGTH), next: 0 }
    }

    /// The next numbers times `scale`, in the type of the device.
    pub(crate) fn tensor(
        &mut self,
        device: &Device,
        shape: &[usize],
        scale: f32,
    ) -> Result<Tensor, KernelError> {
        let len = shape.iter().product();
        let values = self.values.iter().cycle().skip(self.next).take(len).map(|value| scale * value);
        let tensor = Tensor::from_vec(values.collect(), shape)?;
        self.next = (self.next + len) % LENGTH;
        match device {
            Device::Cpu => Ok(tensor),
            _ => tensor.to_device(device, device.dtype()),
        }
    }
}
