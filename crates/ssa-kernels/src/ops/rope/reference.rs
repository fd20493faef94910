//! `f64` definition of the rotation.

/// Rotates heads of `2 * inv_freq.len()` elements; `x` holds `heads` of them per entry of
/// `positions`.
pub fn forward(x: &[f64], positions: &[usize], heads: usize, inv_freq: &[f64]) -> Vec<f64> {
    rotate(x, positions, heads, inv_freq, 1.0)
}

/// Gradient of `x`: the rotation by the opposite angles.
pub fn backward(dout: &[f64], positions: &[usize], heads: usize, inv_freq: &[f64]) -> Vec<f64> {
    rotate(dout, positions, heads, inv_freq, -1.0)
}

fn rotate(x: &[f64], positions: &[usize], heads: usize, inv_freq: &[f64], sign: f64) -> Vec<f64> {
    let half = inv_freq.len();
    let mut out = vec![0.0; x.len()];
    for (index, (x, out)) in x.chunks(2 * half).zip(out.chunks_mut(2 * half)).enumerate() {
        for i in 0..half {
            let (sin, cos) = (sign * positions[index / heads] as f64 * inv_freq[i]).sin_cos();
            out[i] = x[i] * cos - x[i + half] * sin;
            out[i + half] = x[i + half] * cos + x[i] * sin;
        }
    }
    out
}
