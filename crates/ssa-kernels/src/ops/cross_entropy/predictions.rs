//! The losses of several predictions of the same tokens, and their divergences from the first.

use rayon::prelude::*;

use super::{IGNORE_INDEX, PredictionScore, check_labels, cuda};
use crate::contract::{Args, HIDDEN, LEADING, V};
use crate::ops::linear::linear_fwd_f32;
use crate::{Device, Result, Scalar, Tensor};

/// Logits of a chunk of tokens that the CPU holds for each prediction: 16 MiB.
const CHUNK_LOGITS: usize = 1 << 22;

/// For each of the predictions `p_i = softmax(x_i Wᵀ)`, summed over targets n: `loss_sum = sum_n
/// -log p_i[n, labels[n]]` and `divergence_sum = sum_n sum_v p_0[n, v] log(p_0[n, v] / p_i[n, v])`.
///
/// # Shapes
/// Every one of `xs` `[.., hidden]` with N rows, `weight` `[V, hidden]`, `labels` N entries: what
/// each token should predict, or [`IGNORE_INDEX`]. Returns an entry per prediction.
///
/// # Dtypes
/// `f32`, or `bf16` on a GPU. Logits are `f32`, accumulated in `f32`; logarithms of sums and
/// everything after them are `f64` on the CPU. On a GPU probabilities are `f32` and so is each
/// thread's part of a sum of exponentials; all other sums are `f64`.
///
/// # Edge cases
/// No predictions: an empty list. No targets: zeros. The divergence of the first is 0. A logit that
/// is NaN or positive infinity makes the sums NaN.
///
/// # Errors
/// As [`linear_cross_entropy_fwd`](super::linear_cross_entropy_fwd).
///
/// # Determinism
/// Bitwise reproducible for any number of threads: every token has its own score, and scores are
/// added in order. On a GPU as [`linear_fwd`](crate::ops::linear::linear_fwd).
///
/// # Source
/// The divergence between inference modes in the evaluation of the SSA paper (arXiv 2511.20102).
pub fn compare_predictions(
    xs: &[&Tensor],
    weight: &Tensor,
    labels: &[i32],
) -> Result<Vec<PredictionScore>> {
    const OP: &str = "compare_predictions";
    if xs.is_empty() {
        return Ok(Vec::new());
    }
    let args = Args::new(OP).act("weight", weight, [V, HIDDEN]);
    let call = xs
        .iter()
        .fold(args, |args, x| args.act("xs", x, [LEADING, HIDDEN]))
        .entries("labels", labels.len(), "labels", [LEADING])
        .check()?;
    check_labels(OP, call.sizes([V])?, labels)?;
    match call.device() {
        Device::Cuda(gpu) => cuda::compare(gpu, xs, weight, labels),
        Device::Cpu => on_cpu(xs, weight, labels),
    }
}

fn on_cpu(xs: &[&Tensor], weight: &Tensor, labels: &[i32]) -> Result<Vec<PredictionScore>> {
    let chunk = (CHUNK_LOGITS / weight.rows()).max(1);
    let mut sums = vec![(0.0, 0.0); xs.len()];
    for (index, labels) in labels.chunks(chunk).enumerate() {
        let mut first = None;
        for (x, (loss, divergence)) in xs.iter().zip(&mut sums) {
            let logits = Logits::of(x, weight, index * chunk, labels.len())?;
            for score in logits.scores(labels, first.as_ref()) {
                *loss += score.0;
                *divergence += score.1;
            }
            first = first.or(Some(logits));
        }
    }
    let score = |(loss, divergence)| PredictionScore {
        loss_sum: Scalar::new(loss),
        divergence_sum: Scalar::new(divergence),
    };
    Ok(sums.into_iter().map(score).collect())
}

/// The logits of some consecutive tokens with the logarithms of their normalizers.
struct Logits {
    values: Vec<f32>,
    vocab: usize,
    log_sums: Vec<f64>,
}

impl Logits {
    /// The logits of `tokens` tokens from `start`.
    fn of(x: &Tensor, weight: &Tensor, start: usize, tokens: usize) -> Result<Self> {
        let logits = linear_fwd_f32(&x.rows_range(start..start + tokens)?, weight)?;
        let (values, vocab) = (logits.into_vec()?, weight.rows());
        let log_sums = values.par_chunks(vocab).map(log_sum_exp).collect();
        Ok(Self { values, vocab, log_sums })
    }

    fn row(&self, token: usize) -> (&[f32], f64) {
        (&self.values[token * self.vocab..][..self.vocab], self.log_sums[token])
    }

    /// The loss of every token and its divergence from `first` (0 without one); zeros where the
    /// token is not a target.
    fn scores(&self, labels: &[i32], first: Option<&Self>) -> Vec<(f64, f64)> {
        let score = |(token, &label): (usize, &i32)| {
            if label == IGNORE_INDEX {
                return (0.0, 0.0);
            }
            let (logits, log_sum) = self.row(token);
            let from_first =
                first.map_or(0.0, |first| divergence(first.row(token), (logits, log_sum)));
            (log_sum - f64::from(logits[label as usize]), from_first)
        };
        labels.par_iter().enumerate().map(score).collect()
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln()
}

/// `KL(p || q)` in nats of two rows of logits with the logarithms of their normalizers.
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
    use crate::ops::cross_entropy::reference;
    use crate::ops::testing::{assert_refused, to_f64, zeros};
    use ssa_testkit::Random;

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

    #[test]
    fn sums_equal_the_reference() {
        let (tokens, vocab, hidden) = (11, 23, 8);
        let mut random = Random::new(3);
        let mut tensor =
            |rows: usize| Tensor::from_vec(random.normal(rows * hidden), [rows, hidden]).unwrap();
        let (p, q, weight) = (tensor(tokens), tensor(tokens), tensor(vocab));
        let labels: Vec<i32> =
            (0..tokens as i32).map(|n| if n % 4 == 1 { IGNORE_INDEX } else { n * 2 }).collect();
        let (exact_p, exact_q, exact_weight) = (to_f64(&p), to_f64(&q), to_f64(&weight));

        let scores = compare_predictions(&[&p, &q], &weight, &labels).unwrap();
        let sums = |score: &PredictionScore| {
            [score.loss_sum.value().unwrap(), score.divergence_sum.value().unwrap()]
        };
        let losses: f64 =
            reference::losses(&exact_q, &exact_weight, &labels, hidden).unwrap().iter().sum();
        let divergences: f64 =
            reference::divergences(&exact_p, &exact_q, &exact_weight, &labels, hidden)
                .unwrap()
                .iter()
                .sum();
        assert_eq!(sums(&scores[0])[1], 0.0);
        let [loss, divergence] = sums(&scores[1]);
        assert!((loss - losses).abs() < 1e-5 * losses, "{loss} {losses}");
        assert!(
            (divergence - divergences).abs() < 1e-5 * divergences,
            "{divergence} {divergences}"
        );
    }

    #[test]
    fn predictions_of_different_shapes_are_refused() {
        let weight = zeros([5, 4]);
        let xs = [&zeros([2, 1, 4]), &zeros([1, 2, 4])];
        assert_refused(compare_predictions(&xs, &weight, &[0, 1]), "xs");
        assert!(compare_predictions(&[], &weight, &[]).unwrap().is_empty());
    }
}
