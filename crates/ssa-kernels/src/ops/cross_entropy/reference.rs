//! `f64` definition of the loss, with all logits in one matrix.

use super::{IGNORE_INDEX, check_labels};
use crate::Result;
use crate::contract::{Args, HIDDEN, N, V};
use crate::ops::linear;

/// The loss of every token in nats, zero where ignored.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit and labels
/// outside of the vocabulary.
pub fn losses(x: &[f64], weight: &[f64], labels: &[i32], hidden: usize) -> Result<Vec<f64>> {
    let loss = |z: &[f64], label| logsumexp(z) - z[label];
    of_targets(x, weight, labels, hidden, loss)
}

/// The square of the log-normalizer of every token, zero where ignored.
///
/// # Errors
/// As [`losses`].
pub fn lse_squares(x: &[f64], weight: &[f64], labels: &[i32], hidden: usize) -> Result<Vec<f64>> {
    of_targets(x, weight, labels, hidden, |z, _| logsumexp(z).powi(2))
}

/// `value(logits, label)` of every token, zero where ignored.
fn of_targets(
    x: &[f64],
    weight: &[f64],
    labels: &[i32],
    hidden: usize,
    value: impl Fn(&[f64], usize) -> f64,
) -> Result<Vec<f64>> {
    let vocab = check([("x", x)], weight, labels, hidden)?;
    let logits = linear::reference::forward(x, weight, hidden)?;
    let rows = logits.chunks(vocab).zip(labels);
    let value = |(z, &label)| if label == IGNORE_INDEX { 0.0 } else { value(z, label as usize) };
    Ok(rows.map(value).collect())
}

/// `KL(softmax(x_p Wᵀ) || softmax(x_q Wᵀ))` of every token in nats, zero where ignored.
///
/// # Errors
/// As [`losses`].
pub fn divergences(
    x_p: &[f64],
    x_q: &[f64],
    weight: &[f64],
    labels: &[i32],
    hidden: usize,
) -> Result<Vec<f64>> {
    let vocab = check([("x_p", x_p), ("x_q", x_q)], weight, labels, hidden)?;
    let [p, q] = [x_p, x_q].map(|x| linear::reference::forward(x, weight, hidden));
    let (p, q) = (p?, q?);
    let divergence = |((p, q), &label): ((&[f64], &[f64]), &i32)| {
        let (lse_p, lse_q) = (logsumexp(p), logsumexp(q));
        let terms = p.iter().zip(q).map(|(p, q)| (p - lse_p).exp() * ((p - lse_p) - (q - lse_q)));
        if label == IGNORE_INDEX { 0.0 } else { terms.sum() }
    };
    Ok(p.chunks(vocab).zip(q.chunks(vocab)).zip(labels).map(divergence).collect())
}

/// Gradients `(dx, dweight)` of the sum of all losses and `z_loss` times the sum of all squared
/// log-normalizers.
///
/// # Errors
/// As [`losses`].
pub fn backward(
    x: &[f64],
    weight: &[f64],
    labels: &[i32],
    hidden: usize,
    z_loss: f64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let vocab = check([("x", x)], weight, labels, hidden)?;
    let mut dlogits = linear::reference::forward(x, weight, hidden)?;
    for (z, &label) in dlogits.chunks_mut(vocab).zip(labels) {
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

/// Returns V.
fn check<const XS: usize>(
    xs: [(&'static str, &[f64]); XS],
    weight: &[f64],
    labels: &[i32],
    hidden: usize,
) -> Result<usize> {
    const OP: &str = "cross_entropy::reference";
    let args = Args::new(OP)
        .size("hidden", HIDDEN, hidden)
        .numbers("weight", weight, [V, HIDDEN])
        .entries("labels", labels.len(), "labels", [N]);
    let args = xs.into_iter().fold(args, |args, (name, x)| args.numbers(name, x, [N, HIDDEN]));
    let vocab = args.check()?.sizes([V])?;
    check_labels(OP, vocab, labels)?;
    Ok(vocab[0])
}

fn logsumexp(z: &[f64]) -> f64 {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln()
}
