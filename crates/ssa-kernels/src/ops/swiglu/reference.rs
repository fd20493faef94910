//! `f64` definition of the gated activation.

/// `silu(gate) * up`.
pub fn forward(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(gate, up)| gate * sigmoid(*gate) * up).collect()
}

/// Gradients `(dgate, dup)` for an upstream gradient `dout`.
pub fn backward(dout: &[f64], gate: &[f64], up: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let element = |((dout, gate), up): ((&f64, &f64), &f64)| {
        let s = sigmoid(*gate);
        (dout * up * s * (1.0 + gate * (1.0 - s)), dout * gate * s)
    };
    dout.iter().zip(gate).zip(up).map(element).unzip()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
