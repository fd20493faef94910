//! `f64` definition of the bias.

/// Returns `x + bias`.
pub fn forward(x: &[f64], bias: &[f64]) -> Vec<f64> {
    x.iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect()
}

/// Gradient of the bias, of `width` elements, for an upstream gradient `dout`.
pub fn backward(dout: &[f64], width: usize) -> Vec<f64> {
    let mut dbias = vec![0.0; width];
    for row in dout.chunks(width) {
        dbias.iter_mut().zip(row).for_each(|(dbias, dout)| *dbias += dout);
    }
    dbias
}
