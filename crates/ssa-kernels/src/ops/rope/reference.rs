//! `f64` definition of the rotation.

use crate::Result;
use crate::contract::{Args, Axis, N, Sizes};

const HEADS: Axis = Axis::Named("heads", Sizes::Positive);
const HALF: Axis = Axis::Named("D / 2", Sizes::Positive);
const WHOLE: Axis = Axis::Times(2, "D / 2");

/// Rotates heads of `2 * inv_freq.len()` elements; `x` holds `heads` of them per entry of
/// `positions`.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(x: &[f64], positions: &[usize], heads: usize, inv_freq: &[f64]) -> Result<Vec<f64>> {
    rotate(x, positions, heads, inv_freq, 1.0)
}

/// Gradient of `x`: the rotation by the opposite angles.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    dout: &[f64],
    positions: &[usize],
    heads: usize,
    inv_freq: &[f64],
) -> Result<Vec<f64>> {
    rotate(dout, positions, heads, inv_freq, -1.0)
}

fn rotate(
    x: &[f64],
    positions: &[usize],
    heads: usize,
    inv_freq: &[f64],
    sign: f64,
) -> Result<Vec<f64>> {
    Args::new("rope::reference")
        .size("heads", HEADS, heads)
        .numbers("inv_freq", inv_freq, [HALF])
        .entries("positions", positions.len(), "positions", [N])
        .numbers("x", x, [N, HEADS, WHOLE])
        .check()?;
    let half = inv_freq.len();
    let mut out = vec![0.0; x.len()];
    for (index, (x, out)) in x.chunks(2 * half).zip(out.chunks_mut(2 * half)).enumerate() {
        for i in 0..half {
            let (sin, cos) = (sign * positions[index / heads] as f64 * inv_freq[i]).sin_cos();
            out[i] = x[i] * cos - x[i + half] * sin;
            out[i + half] = x[i + half] * cos + x[i] * sin;
        }
    }
    Ok(out)
}
