//! Linear map and cross-entropy on the CPU, one chunk of tokens at a time.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::IGNORE_INDEX;
use crate::Result;
use crate::cpu::gemm::{HostMatrix, HostMatrixMut, Output, Threads, matmul};
use crate::cpu::simd::{dispatch, exp_row_simd, max_row_simd};
use crate::host_memory::zeros;

/// Logits of one chunk, 4 MB: they stay in the cache between the product that writes them and those
/// that read them.
const CHUNK_LOGITS: usize = 1 << 20;

/// Fewest tokens of a chunk. Every chunk reads the weight twice and reads and writes its gradient
/// once; with large vocabularies these passes, not the logits, would bound a small chunk.
/// `README.md` has measurements.
const MIN_CHUNK_TOKENS: usize = 256;

/// Exponentials whose sum is `f32` before it enters the `f64` sum of their row.
const COLUMNS: usize = 4096;

/// Where the gradients of `scale * (sum of losses + z_loss * sum of squared log-normalizers)` are
/// added.
pub(super) struct Gradients<'a> {
    pub(super) scale: f32,
    pub(super) z_loss: f32,
    pub(super) dx: &'a mut [f32],
    pub(super) dweight: &'a mut [f32],
}

/// The weight `[V, hidden]` of the output layer.
pub(super) struct Head<'a> {
    pub(super) weight: &'a [f32],
    pub(super) vocab: usize,
    pub(super) hidden: usize,
}

/// What a token contributes; both zero where ignored.
#[derive(Clone, Copy, Default)]
pub(super) struct TokenLoss {
    /// Its negative log-likelihood.
    pub(super) loss: f64,
    /// The square of its log-normalizer.
    pub(super) lse_square: f64,
}

/// Tokens of a chunk for a vocabulary.
pub(super) fn chunk_tokens(vocab: usize) -> usize {
    (CHUNK_LOGITS / vocab).max(MIN_CHUNK_TOKENS)
}

/// The loss of every token.
///
/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(super) fn losses(
    x: &[f32],
    head: &Head<'_>,
    labels: &[i32],
    mut gradients: Option<Gradients<'_>>,
) -> Result<Vec<TokenLoss>> {
    let &Head { weight, vocab, hidden } = head;
    let weight = HostMatrix::new(weight, vocab, hidden);
    let tokens = chunk_tokens(vocab).min(labels.len().max(1));
    let mut logits = zeros(tokens * vocab)?;
    let mut losses = zeros::<TokenLoss>(labels.len())?;
    for (chunk, (labels, losses)) in
        labels.chunks(tokens).zip(losses.chunks_mut(tokens)).enumerate()
    {
        if labels.iter().all(|&label| label == IGNORE_INDEX) {
            continue;
        }
        let count = labels.len();
        let rows = chunk * tokens * hidden..(chunk * tokens + count) * hidden;
        let logits = &mut logits[..count * vocab];
        let x = HostMatrix::new(&x[rows.clone()], count, hidden);
        let product = HostMatrixMut::new(logits, count, vocab);
        matmul(product, Output::Overwrite, 1.0, x, weight.t(), Threads::All);
        let factors = gradients.as_ref().map(|gradients| (gradients.scale, gradients.z_loss));
        cross_entropy(logits, labels, losses, factors);
        if let Some(Gradients { dx, dweight, .. }) = &mut gradients {
            let dlogits = HostMatrix::new(logits, count, vocab);
            let dx = HostMatrixMut::new(&mut dx[rows], count, hidden);
            matmul(dx, Output::Add, 1.0, dlogits, weight, Threads::All);
            let dweight = HostMatrixMut::new(dweight, vocab, hidden);
            matmul(dweight, Output::Add, 1.0, dlogits.t(), x, Threads::All);
        }
    }
    Ok(losses)
}

/// Losses of a chunk; with factors (scale and z-loss), the logits become the gradient of the loss
/// with respect to them.
fn cross_entropy(
    logits: &mut [f32],
    labels: &[i32],
    losses: &mut [TokenLoss],
    gradient_factors: Option<(f32, f32)>,
) {
    let vocab = logits.len() / labels.len();
    logits.par_chunks_exact_mut(vocab).zip(labels).zip(losses).for_each(
        |((logits, &label), loss)| {
            if label == IGNORE_INDEX {
                logits.fill(0.0);
            } else {
                *loss = dispatch(Row { logits, label: label as usize, gradient_factors });
            }
        },
    );
}

struct Row<'a> {
    logits: &'a mut [f32],
    label: usize,
    gradient_factors: Option<(f32, f32)>,
}

impl WithSimd for Row<'_> {
    type Output = TokenLoss;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> TokenLoss {
        let max = max_row_simd(simd, self.logits);
        let target = self.logits[self.label];
        let mut sum = 0.0;
        for columns in self.logits.chunks_mut(COLUMNS) {
            sum += f64::from(exp_row_simd(simd, columns, 1.0, max));
        }
        let lse = sum.ln() + f64::from(max);
        if let Some((scale, z_loss)) = self.gradient_factors {
            // Without z-loss the first factor is 1: the gradient is bitwise that of the
            // cross-entropy alone.
            let softmax_scale = (1.0 + 2.0 * f64::from(z_loss) * lse) * f64::from(scale);
            let factor = (softmax_scale / sum) as f32;
            for logit in &mut *self.logits {
                *logit *= factor;
            }
            self.logits[self.label] -= scale;
        }
        TokenLoss { loss: sum.ln() + (f64::from(max) - f64::from(target)), lse_square: lse * lse }
    }
}
