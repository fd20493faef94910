//! What the device does at best.

use serde::Serialize;
use ssa_kernels::ops::linear::linear_fwd;
use ssa_kernels::{Device, KernelError};

use crate::inputs::Normal;
use crate::{Meter, Result};

pub(crate) const TERA: f64 = 1e12;
pub(crate) const GIGA: f64 = 1e9;

/// The rates that others are shares of, measured on the device itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peaks {
    /// Of a large square matrix product in the type that the device computes in, TFLOP/s.
    pub tflops: f64,
    /// Of adding one large tensor to another, two read and one written, GB/s.
    pub gb_per_s: f64,
}

impl Peaks {
    /// Measures both; takes less than a second on a GPU.
    ///
    /// # Errors
    /// The device fails or is out of memory (the tensors take 1 GB on a GPU).
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
