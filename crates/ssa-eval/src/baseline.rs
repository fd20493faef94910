//! How far the mere frequency of tokens gets.

use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;

use crate::{Baseline, EvalBatch, EvalError, Result};

/// Predicts every target by how often its token occurs in `training_ids`, with one more count for each of the
/// `vocab_size` tokens so that none is impossible.
///
/// # Errors
/// [`EvalError::NoTargets`] if the batches have no target or cover no text.
pub fn frequency_baseline<'a>(
    training_ids: impl IntoIterator<Item = &'a u32>,
    vocab_size: usize,
    batches: &[EvalBatch],
) -> Result<Baseline> {
    let mut counts = vec![1.0f64; vocab_size];
    for &id in training_ids {
        if let Some(count) = counts.get_mut(id as usize) {
            *count += 1.0;
        }
    }
    let log_total = counts.iter().sum::<f64>().ln();
    let labels = batches.iter().flat_map(|batch| &batch.labels).filter(|&&label| label != IGNORE_INDEX);
    let (mut nll, mut targets) = (0.0, 0usize);
    for &label in labels {
        let count = usize::try_from(label).ok().and_then(|label| counts.get(label)).copied().unwrap_or(1.0);
        nll += log_total - count.ln();
        targets += 1;
    }
    let bytes: usize = batches.iter().map(|batch| batch.bytes).sum();
    if targets == 0 || bytes == 0 {
        return Err(EvalError::NoTargets);
    }
    let nats_per_token = nll / targets as f64;
    Ok(Baseline {
        nats_per_token,
        perplexity: nats_per_token.exp(),
        bits_per_byte: nll / std::f64::consts::LN_2 / bytes as f64,
    })
}

#[cfg(test)]
mod tests {
    use ssa_model::Input;

    use super::*;

    #[test]
    fn frequencies_are_smoothed_by_one() {
        let input = Input::rows(vec![0, 1, 0, 1], 1, 4).unwrap();
        let batch = EvalBatch { input, labels: vec![1, 0, 1, IGNORE_INDEX], bytes: 3 };
        // Counts with one more each: 1 + 2 of token 0 and 1 + 0 of token 1.
        let baseline = frequency_baseline(&[0, 0], 2, &[batch]).unwrap();
        let expected = (2.0 * (4f64).ln() + (4f64 / 3.0).ln()) / 3.0;
        assert!((baseline.nats_per_token - expected).abs() < 1e-12);
        assert!((baseline.bits_per_byte - expected / std::f64::consts::LN_2).abs() < 1e-12);
    }
}
