//! Next-token losses and divergences from final hidden states, a few rows of logits at a time.

use rayon::prelude::*;
use ssa_data::IGNORE_INDEX;
use ssa_kernels::Tensor;
use ssa_model::{Model, ModelError};

use crate::Result;

/// Logits held at once per inference mode: 16 MiB.
const LOGITS_PER_CHUNK: usize = 1 << 22;

/// Sums over target tokens of one inference mode.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Score {
    /// Negative log-likelihood in nats.
    pub(crate) nll: f64,
    /// `KL(p_full || p_mode)` in nats.
    pub(crate) kl: f64,
    /// Tokens that count.
    pub(crate) targets: usize,
}

/// Adds the scores of one batch. `hidden` and `scores` have one entry per inference mode; with `against_first` the
/// first mode is full attention and every other one's divergence from it is summed.
///
/// No mode ever holds logits for more than a chunk of tokens. Sums run in token order in `f64`, so the result does
/// not depend on the number of threads.
pub(crate) fn add_scores(
    model: &Model,
    hidden: &[Tensor],
    labels: &[i32],
    against_first: bool,
    scores: &mut [Score],
) -> Result<()> {
    let chunk = (LOGITS_PER_CHUNK / model.config().vocab_size).max(1);
    let hidden =
        hidden.iter().map(Tensor::to_vec).collect::<Result<Vec<_>, _>>().map_err(ModelError::from)?;
    for start in (0..labels.len()).step_by(chunk) {
        let labels = &labels[start..labels.len().min(start + chunk)];
        let mut reference: Option<Logits> = None;
        for (hidden, score) in hidden.iter().zip(&mut *scores) {
            let logits = Logits::of(model, hidden, start, labels.len())?;
            for (nll, kl) in logits.token_scores(labels, reference.as_ref()) {
                score.nll += nll;
                score.kl += kl;
            }
            score.targets += labels.iter().filter(|&&label| label != IGNORE_INDEX).count();
            if against_first && reference.is_none() {
                reference = Some(logits);
            }
        }
    }
    Ok(())
}

/// The logits of some consecutive tokens with the logarithms of their normalisers.
struct Logits {
    values: Vec<f32>,
    vocab_size: usize,
    log_sums: Vec<f64>,
}

impl Logits {
    /// Of `tokens` tokens from `start` on; `hidden` are the states of all tokens.
    fn of(model: &Model, hidden: &[f32], start: usize, tokens: usize) -> Result<Self, ModelError> {
        let (width, vocab_size) = (model.config().hidden_size, model.config().vocab_size);
        let rows = hidden[start * width..(start + tokens) * width].to_vec();
        let device = model.device();
        let rows = Tensor::from_vec(rows, [1, tokens, width])?.to_device(&device, device.dtype())?;
        let values = model.logits(&rows)?.to_vec()?;
        let log_sums = values.par_chunks(vocab_size).map(log_sum_exp).collect();
        Ok(Self { values, vocab_size, log_sums })
    }

    fn row(&self, token: usize) -> (&[f32], f64) {
        (&self.values[token * self.vocab_size..][..self.vocab_size], self.log_sums[token])
    }

    /// Per target token, its negative log-likelihood and its divergence from `reference` (0 without one).
    fn token_scores(&self, labels: &[i32], reference: Option<&Self>) -> Vec<(f64, f64)> {
        let score = |(token, &label): (usize, &i32)| {
            let Ok(label) = usize::try_from(label) else { return (0.0, 0.0) };
            let (logits, log_sum) = self.row(token);
            let kl = reference.map_or(0.0, |reference| divergence(reference.row(token), (logits, log_sum)));
            (log_sum - f64::from(logits[label]), kl)
        };
        labels.par_iter().enumerate().map(score).collect()
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let max = f64::from(max);
    max + logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln()
}

/// `KL(p || q)` in nats of two rows of logits with the logarithms of their normalisers.
fn divergence((p, p_log_sum): (&[f32], f64), (q, q_log_sum): (&[f32], f64)) -> f64 {
    let term = |(&p, &q): (&f32, &f32)| {
        let (log_p, log_q) = (f64::from(p) - p_log_sum, f64::from(q) - q_log_sum);
        log_p.exp() * (log_p - log_q)
    };
    p.iter().zip(q).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sum_exp_does_not_overflow() {
        assert!((log_sum_exp(&[1000.0, 1000.0]) - (1000.0 + 2f64.ln())).abs() < 1e-12);
        assert!(log_sum_exp(&[f32::NAN, 1.0]).is_nan());
    }

    #[test]
    fn divergence_is_zero_for_shifted_logits_and_positive_otherwise() {
        let row = |logits: &'static [f32]| (logits, log_sum_exp(logits));
        assert!(divergence(row(&[0.0, 1.0, 2.0]), row(&[5.0, 6.0, 7.0])).abs() < 1e-12);
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln 2 - ln 3 / 2.
        let q: [f32; 2] = [0.0, 3f32.ln()];
        let kl = divergence(row(&[0.0, 0.0]), (&q, log_sum_exp(&q)));
        assert!((kl - (2f64.ln() - 0.5 * 3f64.ln())).abs() < 1e-7);
    }
}
