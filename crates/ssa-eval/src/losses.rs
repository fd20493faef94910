//! Next-token losses and divergences from final hidden states.

use ssa_data::{IGNORE_INDEX, bits_per_byte};
use ssa_kernels::Tensor;
use ssa_kernels::ops::cross_entropy::compare_predictions;
use ssa_model::{Model, ModelError};

use crate::sum::Sum;
use crate::{EvalError, Result};

/// Sums over target tokens of one inference mode.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Score {
    /// Negative log-likelihood in nats.
    pub(crate) nll: f64,
    /// `KL(p_first || p_mode)` in nats, from the first mode.
    pub(crate) kl: f64,
    /// Number of target tokens.
    pub(crate) targets: usize,
}

impl Sum for Score {
    const NUMBERS: usize = 3;

    fn to_numbers(&self) -> Vec<f64> {
        vec![self.nll, self.kl, self.targets as f64]
    }

    fn from_numbers(numbers: &[f64]) -> Self {
        let [nll, kl, targets] = *numbers else { return Self::default() };
        Self { nll, kl, targets: targets as usize }
    }

    fn add(&mut self, other: &Self) {
        self.nll += other.nll;
        self.kl += other.kl;
        self.targets += other.targets;
    }
}

/// Means of a mode over its target tokens.
pub(crate) struct Quality {
    pub(crate) nats_per_token: f64,
    pub(crate) perplexity: f64,
    pub(crate) bits_per_byte: f64,
    /// `KL(p_first || p_mode)` in nats.
    pub(crate) kl: f64,
}

impl Score {
    /// The means, for targets that cover so many bytes of text.
    pub(crate) fn quality(&self, bytes: f64) -> Quality {
        let nats_per_token = self.nll / self.targets as f64;
        Quality {
            nats_per_token,
            perplexity: nats_per_token.exp(),
            bits_per_byte: bits_per_byte(self.nll, bytes),
            kl: self.kl / self.targets as f64,
        }
    }
}

/// Adds the scores of one batch. `hidden` and `scores` have one entry per inference mode, full
/// attention first if there is any.
pub(crate) fn add_scores(
    model: &Model,
    hidden: &[Tensor],
    labels: &[i32],
    scores: &mut [Score],
) -> Result<()> {
    let hidden: Vec<&Tensor> = hidden.iter().collect();
    let sums = compare_predictions(&hidden, model.parameters().head(), labels)
        .map_err(ModelError::from)?;
    let targets = labels.iter().filter(|&&label| label != IGNORE_INDEX).count();
    for (score, sums) in scores.iter_mut().zip(sums) {
        score.nll += sums.loss_sum.value().map_err(ModelError::from)?;
        score.kl += sums.divergence_sum.value().map_err(ModelError::from)?;
        score.targets += targets;
    }
    Ok(())
}

/// Refuses scores of a diverged model. `name` maps an index of `scores` to the name of its
/// inference mode.
pub(crate) fn check_finite(
    scores: &[Score],
    batch: usize,
    name: impl Fn(usize) -> String,
) -> Result<()> {
    match scores.iter().position(|score| !score.nll.is_finite()) {
        Some(mode) => Err(EvalError::NotFinite { mode: name(mode), batch }),
        None => Ok(()),
    }
}
