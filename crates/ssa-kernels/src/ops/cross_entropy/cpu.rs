//! Linear map and cross-entropy on the CPU, one chunk of tokens at a time.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::IGNORE_INDEX;
use crate::Tensor;
use crate::cpu::gemm::{Matrix, MatrixMut, Output, Threads, matmul};
use crate::cpu::simd::{dispatch, exp_row_simd, max_row_simd};

/// Logits of one chunk, 4 MB: they stay in the cache between the product that writes them and those that read
/// them.
const CHUNK_LOGITS: usize = 1 << 20;

/// Tokens of a chunk at least. Every chunk reads the weight twice and its gradient once, and writes that
/// back; with large vocabularies this, and not the logits, is what a small chunk would wait for. `README.md`
/// has measurements.
const MIN_CHUNK_TOKENS: usize = 256;

/// Exponentials that are summed in `f32` before they join the `f64` sum of their row.
const COLUMNS: usize = 4096;

/// Where the gradients of `scale * sum of losses` are added.
pub(super) struct Gradients<'a> {
    pub(super) scale: f32,
    pub(super) dx: &'a mut [f32],
    pub(super) dweight: &'a mut [f32],
}

/// Tokens of a chunk for a vocabulary.
pub(super) fn chunk_tokens(vocab: usize) -> usize {
    (CHUNK_LOGITS / vocab).max(MIN_CHUNK_TOKENS)
}

/// The loss of every token, zero where ignored.
pub(super) fn losses(
    x: &Tensor,
    weight: &Tensor,
    labels: &[i32],
    mut gradients: Option<Gradients<'_>>,
) -> Vec<f64> {
    let (vocab, hidden) = (weight.rows(), weight.last_dim());
    let weight = Matrix::new(weight.as_slice(), vocab, hidden);
    let tokens = chunk_tokens(vocab).min(labels.len().max(1));
    let mut logits = vec![0.0; tokens * vocab];
    let mut losses = vec![0.0; labels.len()];
    for (chunk, (labels, losses)) in labels.chunks(tokens).zip(losses.chunks_mut(tokens)).enumerate() {
        if labels.iter().all(|&label| label == IGNORE_INDEX) {
            continue;
        }
        let count = labels.len();
        let rows = chunk * tokens * hidden..(chunk * tokens + count) * hidden;
        let logits = &mut logits[..count * vocab];
        let x = Matrix::new(&x.as_slice()[rows.clone()], count, hidden);
        let product = MatrixMut::new(logits, count, vocab);
        matmul(product, Output::Overwrite, 1.0, x, weight.t(), Threads::All);
        cross_entropy(logits, labels, losses, gradients.as_ref().map(|gradients| gradients.scale));
        if let Some(Gradients { dx, dweight, .. }) = &mut gradients {
            let dlogits = Matrix::new(logits, count, vocab);
            let dx = MatrixMut::new(&mut dx[rows], count, hidden);
            matmul(dx, Output::Add, 1.0, dlogits, weight, Threads::All);
            let dweight = MatrixMut::new(dweight, vocab, hidden);
            matmul(dweight, Output::Add, 1.0, dlogits.t(), x, Threads::All);
        }
    }
    losses
}

/// Losses of a chunk; with a scale, the logits become the gradient of the loss with respect to them.
fn cross_entropy(logits: &mut [f32], labels: &[i32], losses: &mut [f64], gradient_scale: Option<f32>) {
    let vocab = logits.len() / labels.len();
    logits.par_chunks_exact_mut(vocab).zip(labels).zip(losses).for_each(|((logits, &label), loss)| {
        if label == IGNORE_INDEX {
            logits.fill(0.0);
        } else {
            *loss = dispatch(Row { logits, label: label as usize, gradient_scale });
        }
    });
}

struct Row<'a> {
    logits: &'a mut [f32],
    label: usize,
    gradient_scale: Option<f32>,
}

impl WithSimd for Row<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let max = max_row_simd(simd, self.logits);
        let target = self.logits[self.label];
        let mut sum = 0.0;
        for columns in self.logits.chunks_mut(COLUMNS) {
            sum += f64::from(exp_row_simd(simd, columns, 1.0, max));
        }
        if let Some(scale) = self.gradient_scale {
            let factor = (f64::from(scale) / sum) as f32;
            for logit in &mut *self.logits {
                *logit *= factor;
            }
            self.logits[self.label] -= scale;
        }
        sum.ln() + (f64::from(max) - f64::from(target))
    }
}
