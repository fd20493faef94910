//! How likely given tokens are.

use rayon::prelude::*;
use ssa_kernels::Tensor;
use ssa_kernels::kv_cache::SequenceId;

use super::Engine;
use crate::{CallOptions, InferError, InferenceModel, Result};

/// Rows whose logits are in memory at once.
const ROWS: usize = 64;

/// The next tokens of a sequence, and the tokens that are scored after the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoredChunk<'a> {
    /// The sequence.
    pub sequence: SequenceId,
    /// The tokens to append, at least one.
    pub ids: &'a [u32],
    /// The last of these follows the last of `ids`, the one before it the one before, and so on. At
    /// most as many as `ids`.
    pub targets: &'a [u32],
}

/// What a model says of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// The logarithm of its probability, in nats.
    pub log_likelihood: f64,
    /// Whether no token is more likely, and none before it equally likely.
    pub greedy: bool,
}

impl Engine {
    /// Appends tokens to sequences and scores given tokens in the place of the next ones. The
    /// logits are never all in memory.
    ///
    /// `log_likelihood = z_target - max z - ln sum_v exp(z_v - max z)` of the `f32` logits `z`,
    /// summed in `f64` in the order of the vocabulary.
    ///
    /// # Errors
    /// As [`Engine::forward`]; [`InferError::Token`] for a target that is not in the vocabulary;
    /// [`InferError::Setting`] for more targets than tokens; [`InferError::NotANumber`].
    pub fn score(
        &mut self,
        chunks: &[ScoredChunk<'_>],
        options: &CallOptions,
    ) -> Result<Vec<Vec<TokenScore>>> {
        self.settle_ahead()?;
        let vocab_size = self.model.config().vocab_size;
        for &ScoredChunk { sequence: id, ids, targets } in chunks {
            if targets.len() > ids.len() {
                let expected = "at most as many as tokens";
                return Err(InferError::setting("targets", expected, targets.len()));
            }
            if let Some(&token) = targets.iter().find(|&&token| token as usize >= vocab_size) {
                return Err(InferError::Token { id, token, vocab_size });
            }
        }
        let call: Vec<_> = chunks.iter().map(|chunk| (chunk.sequence, chunk.ids)).collect();
        let filled_by = self.admit(&call, options)?;
        let mut scores: Vec<Vec<TokenScore>> = vec![Vec::new(); chunks.len()];
        self.or_undone(&call, |engine| {
            rayon::scope(|_| {
                engine.run_chunks(&call, options, filled_by, |model, part| {
                    let ScoredChunk { ids, targets, .. } = chunks[part.chunk];
                    // The first token that predicts a target.
                    let first = (ids.len() - targets.len()).max(part.ids.start);
                    if first >= part.ids.end {
                        return Ok(());
                    }
                    let rows = part.rows.start + (first - part.ids.start)..part.rows.end;
                    let targets = &targets[first + targets.len() - ids.len()..][..rows.len()];
                    let hidden = part.hidden.rows_range(rows)?;
                    scores[part.chunk].extend(score_rows(model, &hidden, targets)?);
                    Ok(())
                })
            })
        })?;
        Ok(scores)
    }
}

/// Scores one target for each row of hidden states.
fn score_rows(model: &InferenceModel, hidden: &Tensor, targets: &[u32]) -> Result<Vec<TokenScore>> {
    let vocab_size = model.config().vocab_size;
    let mut scores = Vec::with_capacity(targets.len());
    for (block, targets) in targets.chunks(ROWS).enumerate() {
        let first = block * ROWS;
        let rows = hidden.rows_range(first..first + targets.len())?;
        let logits = model.logits(&rows)?.to_vec()?;
        let rows = logits.par_chunks_exact(vocab_size).zip(targets);
        let rows: Vec<TokenScore> =
            rows.map(|(row, &target)| score(row, target as usize)).collect();
        if rows.iter().any(|score| !score.log_likelihood.is_finite()) {
            return Err(InferError::NotANumber);
        }
        scores.extend(rows);
    }
    Ok(scores)
}

fn score(logits: &[f32], target: usize) -> TokenScore {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - largest).exp())).sum();
    let most_likely = logits.iter().position(|&logit| logit == largest);
    TokenScore {
        log_likelihood: f64::from(logits[target]) - f64::from(largest) - sum.ln(),
        greedy: most_likely == Some(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_a_log_softmax() {
        let logits = [1.0_f32, 3.0, -2.0, 3.0];
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        for (target, &logit) in logits.iter().enumerate() {
            let found = score(&logits, target);
            assert!((found.log_likelihood - (f64::from(logit) - sum.ln())).abs() < 1e-7);
            assert_eq!(found.greedy, target == 1, "of equals the first");
        }
        assert!(score(&[f32::NAN, 1.0], 1).log_likelihood.is_nan());
    }
}
