//! Random tensors, generated fast enough for the largest sizes.

use ssa_kernels::{Device, KernelError, Tensor};
use ssa_testkit::Random;

/// A prime, so that rows of any width start at different offsets.
const LENGTH: usize = (1 << 22) - 3;

/// An endless stream of standard normal numbers, which repeats after a few million.
pub(crate) struct Normal {
    values: Vec<f32>,
    next: usize,
}

impl Normal {
    pub(crate) fn new() -> Self {
        Self { values: Random::new(1).normal(LENGTH), next: 0 }
    }

    /// A tensor of the next numbers, in the dtype of the device.
    pub(crate) fn tensor(
        &mut self,
        device: &Device,
        shape: &[usize],
    ) -> Result<Tensor, KernelError> {
        let len = shape.iter().product();
        let mut values = Vec::with_capacity(len);
        while values.len() < len {
            let end = LENGTH.min(self.next + len - values.len());
            values.extend_from_slice(&self.values[self.next..end]);
            self.next = end % LENGTH;
        }
        let tensor = Tensor::from_vec(values, shape)?;
        match device {
            Device::Cpu => Ok(tensor),
            _ => tensor.to_device(device, device.dtype()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_continue_where_they_ended() {
        let mut normal = Normal::new();
        let first = normal.tensor(&Device::Cpu, &[LENGTH - 1]).unwrap();
        let second = normal.tensor(&Device::Cpu, &[3, LENGTH]).unwrap();
        let third = normal.tensor(&Device::Cpu, &[2]).unwrap();
        let [first, second, third] = [&first, &second, &third].map(|x| x.as_slice().unwrap());
        assert_eq!(second[1], first[0]);
        assert_eq!(second[LENGTH + 1], first[0]);
        assert_eq!(third[1], first[0]);
    }
}
