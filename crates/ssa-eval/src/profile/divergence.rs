//! The divergence of predictions by position.

use ssa_data::IGNORE_INDEX;
use ssa_kernels::Tensor;
use ssa_kernels::ops::cross_entropy::compare_predictions;
use ssa_model::{Model, ModelError};

use super::bins::{POSITIONS, position_bin};
use crate::EvalBatch;

/// Sums of `KL(p_full || p_sparse)` over the targets of each bin of positions.
#[derive(Default)]
pub(crate) struct DivergenceSums([(f64, usize); POSITIONS]);

impl DivergenceSums {
    /// Adds a batch with its final hidden states under full and under sparse attention.
    pub(crate) fn add(
        &mut self,
        model: &Model,
        batch: &EvalBatch,
        hidden: [&Tensor; 2],
    ) -> Result<(), ModelError> {
        let values = [hidden[0].to_vec()?, hidden[1].to_vec()?];
        let width = hidden[0].last_dim();
        let mut tokens = vec![Vec::new(); POSITIONS];
        for (token, position) in batch.input.documents().positions().enumerate() {
            if batch.labels[token] != IGNORE_INDEX {
                tokens[position_bin(position)].push(token);
            }
        }
        // The predictions of a bin alone: each token is in one bin, so nothing is computed twice.
        for (sum, tokens) in self.0.iter_mut().zip(&tokens).filter(|(_, tokens)| !tokens.is_empty())
        {
            let rows = |values: &Vec<f32>| {
                let row = |&token: &usize| &values[token * width..(token + 1) * width];
                let rows: Vec<f32> = tokens.iter().flat_map(row).copied().collect();
                let device = hidden[0].device();
                Tensor::from_vec(rows, [tokens.len(), width])?.to_device(&device, device.dtype())
            };
            let [full, sparse] = [rows(&values[0])?, rows(&values[1])?];
            let labels: Vec<i32> = tokens.iter().map(|&token| batch.labels[token]).collect();
            let head = model.parameters().head();
            let scores = compare_predictions(&[&full, &sparse], head, &labels)?;
            if let Some(score) = scores.last() {
                sum.0 += score.divergence_sum.value()?;
                sum.1 += tokens.len();
            }
        }
        Ok(())
    }

    /// The mean of a bin.
    pub(super) fn mean(&self, bin: usize) -> Option<f64> {
        let (sum, targets) = self.0[bin];
        (targets > 0).then(|| sum / targets as f64)
    }
}
