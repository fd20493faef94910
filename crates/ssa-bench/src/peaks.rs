//! Measured peak rates of the device.

use serde::Serialize;
use ssa_kernels::ops::linear::linear_fwd;
use ssa_kernels::{Device, KernelError};

use crate::inputs::Normal;
use crate::{Meter, Result};

pub(crate) const TERA: f64 = 1e12;
pub(crate) const GIGA: f64 = 1e9;

/// Peak rates, measured on the device itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peaks {
    /// Rate of a large square matrix product in the compute dtype, TFLOP/s.
    pub tflops: f64,
    /// Rate of adding one large tensor to another (two reads, one write), GB/s.
    pub gb_per_s: f64,
}

impl Peaks {
    /// Measures both rates, in less than a second on a GPU.
    ///
    /// # Errors
    /// If the device fails or is out of memory (the tensors need 1 GB on a GPU).
    pub fn measure(meter: &Meter) -> Result<Self> {
        let device = meter.device();
        let (size, elements) = match device {
            Device::Cpu => (1024, 1 << 24),
            _ => (8192, 1 << 27),
        };
        let mut random = Normal::new();
        let mut square = || random.tensor(device, &[size, size]);
        let operands = [[square()?, square()?], [square()?, square()?]];
        let product = meter.measure(operands.len(), |set| {
            let [x, weight] = &operands[set];
            linear_fwd(x, weight).map(drop)
        })?;
        let mut sum = random.tensor(device, &[elements])?;
        let other = random.tensor(device, &[elements])?;
        let add = meter.measure(1, |_| -> Result<(), KernelError> { sum.add_assign(&other) })?;
        Ok(Self {
            tflops: product.per_second(2.0 * (size as f64).powi(3)) / TERA,
            gb_per_s: add.per_second((3 * elements * device.dtype().size()) as f64) / GIGA,
        })
    }
}
