//! `f64` definition of the bias.

use crate::Result;
use crate::contract::{Args, N, O};
use crate::host_memory::zeros;

/// Returns `x + bias`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(x: &[f64], bias: &[f64]) -> Result<Vec<f64>> {
    let args = Args::new("bias::reference::forward");
    args.numbers("bias", bias, [O]).numbers("x", x, [N, O]).check()?;
    Ok(x.iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect())
}

/// Gradient of the bias, of `width` elements, for an upstream gradient `dout`.
///
/// # Errors
/// As [`forward`], and [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub fn backward(dout: &[f64], width: usize) -> Result<Vec<f64>> {
    let args = Args::new("bias::reference::backward");
    args.size("width", O, width).numbers("dout", dout, [N, O]).check()?;
    let mut dbias = zeros(width)?;
    for row in dout.chunks(width) {
        dbias.iter_mut().zip(row).for_each(|(dbias, dout)| *dbias += dout);
    }
    Ok(dbias)
}
