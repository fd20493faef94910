//! `f64` definition of RMSNorm.

/// Returns `(out, rstd)`.
pub fn forward(x: &[f64], weight: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let hidden = weight.len();
    let rstd: Vec<f64> = x
        .chunks(hidden)
        .map(|x| (x.iter().map(|x| x * x).sum::<f64>() / hidden as f64 + eps).sqrt().recip())
        .collect();
    let out =
        x.iter().enumerate().map(|(i, x)| x * rstd[i / hidden] * weight[i % hidden]).collect();
    (out, rstd)
}

/// Gradients `(dx, dweight)` for an upstream gradient `dout`.
pub fn backward(dout: &[f64], x: &[f64], weight: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let hidden = weight.len();
    let (_, rstd) = forward(x, weight, eps);
    let mut dx = vec![0.0; x.len()];
    let mut dweight = vec![0.0; hidden];
    for (n, rstd) in rstd.iter().enumerate() {
        let row = n * hidden..(n + 1) * hidden;
        let (dout, x, dx) = (&dout[row.clone()], &x[row.clone()], &mut dx[row]);
        let mean =
            (0..hidden).map(|i| weight[i] * dout[i] * x[i] * rstd).sum::<f64>() / hidden as f64;
        for i in 0..hidden {
            dx[i] = rstd * (weight[i] * dout[i] - x[i] * rstd * mean);
            dweight[i] += dout[i] * x[i] * rstd;
        }
    }
    (dx, dweight)
}
