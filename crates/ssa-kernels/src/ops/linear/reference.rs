//! `f64` definition of the linear map.

/// `y[n, o] = sum_i x[n, i] w[o, i]`.
pub fn forward(x: &[f64], weight: &[f64], inputs: usize) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    x.chunks(inputs).flat_map(|x| weight.chunks(inputs).map(move |w| dot(x, w))).collect()
}

/// Gradients `(dx, dweight)` for an upstream gradient `dout`.
pub fn backward(dout: &[f64], x: &[f64], weight: &[f64], inputs: usize) -> (Vec<f64>, Vec<f64>) {
    let outputs = weight.len() / inputs;
    let mut dx = vec![0.0; x.len()];
    let mut dweight = vec![0.0; weight.len()];
    for (n, dout) in dout.chunks(outputs).enumerate() {
        for (o, dout) in dout.iter().enumerate() {
            for i in 0..inputs {
                dx[n * inputs + i] += dout * weight[o * inputs + i];
                dweight[o * inputs + i] += dout * x[n * inputs + i];
            }
        }
    }
    (dx, dweight)
}
