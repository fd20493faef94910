//! `f64` definition of the loss, with all logits in one matrix.

use super::IGNORE_INDEX;
use crate::ops::linear;

/// The loss of every token in nats, zero where ignored.
pub fn losses(x: &[f64], weight: &[f64], labels: &[i32], hidden: usize) -> Vec<f64> {
    let logits = linear::reference::forward(x, weight, hidden);
    let rows = logits.chunks(weight.len() / hidden).zip(labels);
    rows.map(
        |(z, &label)| if label == IGNORE_INDEX { 0.0 } else { logsumexp(z) - z[label as usize] },
    )
    .collect()
}

/// The square of the log-normalizer of every token, zero where ignored.
pub fn lse_squares(x: &[f64], weight: &[f64], labels: &[i32], hidden: usize) -> Vec<f64> {
    let logits = linear::reference::forward(x, weight, hidden);
    let rows = logits.chunks(weight.len() / hidden).zip(labels);
    rows.map(|(z, &label)| if label == IGNORE_INDEX { 0.0 } else { logsumexp(z).powi(2) }).collect()
}

/// `KL(softmax(x_p Wᵀ) || softmax(x_q Wᵀ))` of every token in nats, zero where ignored.
pub fn divergences(
    x_p: &[f64],
    x_q: &[f64],
    weight: &[f64],
    labels: &[i32],
    hidden: usize,
) -> Vec<f64> {
    let vocab = weight.len() / hidden;
    let [p, q] = [x_p, x_q].map(|x| linear::reference::forward(x, weight, hidden));
    let divergence = |((p, q), &label): ((&[f64], &[f64]), &i32)| {
        let (lse_p, lse_q) = (logsumexp(p), logsumexp(q));
        let terms = p.iter().zip(q).map(|(p, q)| (p - lse_p).exp() * ((p - lse_p) - (q - lse_q)));
        if label == IGNORE_INDEX { 0.0 } else { terms.sum() }
    };
    p.chunks(vocab).zip(q.chunks(vocab)).zip(labels).map(divergence).collect()
}

/// Gradients `(dx, dweight)` of the sum of all losses and `z_loss` times the sum of all squared
/// log-normalizers.
pub fn backward(
    x: &[f64],
    weight: &[f64],
    labels: &[i32],
    hidden: usize,
    z_loss: f64,
) -> (Vec<f64>, Vec<f64>) {
    let mut dlogits = linear::reference::forward(x, weight, hidden);
    for (z, &label) in dlogits.chunks_mut(weight.len() / hidden).zip(labels) {
        let lse = logsumexp(z);
        for (v, z) in z.iter_mut().enumerate() {
            let onehot = if v as i32 == label { 1.0 } else { 0.0 };
            *z = if label == IGNORE_INDEX {
                0.0
            } else {
                (1.0 + 2.0 * z_loss * lse) * (*z - lse).exp() - onehot
            };
        }
    }
    linear::reference::backward(&dlogits, x, weight, hidden)
}

fn logsumexp(z: &[f64]) -> f64 {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln()
}
