//! Temperature, top-k, top-p and min-p: the tokens that can be drawn.

use super::SamplingOptions;

/// A token that can be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    /// Its score less the largest score: 0 or less.
    pub(super) log_weight: f64,
}

impl Candidate {
    fn weight(&self) -> f64 {
        self.log_weight.exp()
    }
}

/// The tokens that pass all filters, the most probable one among them, where `largest` is the
/// largest logit.
pub(super) fn candidates(
    logits: &[f32],
    largest: f32,
    options: &SamplingOptions,
) -> Vec<Candidate> {
    let log_weight = |logit: f32| (f64::from(logit) - f64::from(largest)) / options.temperature;
    let indexed = (0_u32..).zip(logits);
    let mut candidates: Vec<Candidate> = match top_k_threshold(logits, options.top_k) {
        Some(threshold) => indexed
            .filter(|(_, logit)| **logit >= threshold)
            .map(|(id, &logit)| Candidate { id, log_weight: log_weight(logit) })
            .collect(),
        None => {
            indexed.map(|(id, &logit)| Candidate { id, log_weight: log_weight(logit) }).collect()
        }
    };
    candidates.retain(|candidate| candidate.log_weight > f64::NEG_INFINITY);
    top_p(&mut candidates, options.top_p);
    if options.min_p > 0.0 {
        candidates.retain(|candidate| candidate.weight() >= options.min_p);
    }
    candidates
}

/// The k-th largest logit, if that excludes any.
fn top_k_threshold(logits: &[f32], k: usize) -> Option<f32> {
    if k == 0 || k >= logits.len() {
        return None;
    }
    let mut sorted = logits.to_vec();
    let (_, threshold, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    Some(*threshold)
}

/// Drops the least probable tokens whose probabilities sum to at most `1 - p`.
fn top_p(candidates: &mut Vec<Candidate>, p: f64) {
    if p >= 1.0 {
        return;
    }
    let total: f64 = candidates.iter().map(Candidate::weight).sum();
    let drop = (1.0 - p) * total;
    // Tokens below the average of what is dropped are dropped in any case, so that few are sorted.
    let mut dropped = 0.0;
    let surely = drop / candidates.len() as f64;
    candidates.retain(|candidate| {
        let weight = candidate.weight();
        if weight < surely {
            dropped += weight;
        }
        weight >= surely
    });
    // Of equally probable tokens the one of the smaller id stays.
    let by_weight =
        |a: &Candidate, b: &Candidate| a.log_weight.total_cmp(&b.log_weight).then(b.id.cmp(&a.id));
    candidates.sort_unstable_by(by_weight);
    let kept_from = candidates.iter().position(|candidate| {
        dropped += candidate.weight();
        dropped > drop
    });
    let last = candidates.len().saturating_sub(1);
    candidates.drain(..kept_from.unwrap_or(last));
}
