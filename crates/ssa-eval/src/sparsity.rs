//! Attention sparsity from two log-sum-exps, without computing single weights.

use ssa_kernels::Tensor;
use ssa_kernels::ops::attention::AttentionCall;
use ssa_kernels::ops::attention::full::full_attention_fwd;
use ssa_kernels::ops::attention::selection::{SelectionOptions, select_by_means};
use ssa_kernels::ops::attention::sparse::sparse_attention_fwd;
use ssa_model::{AttentionOptions, LayerAttention, Model, ModelError};

use crate::sum::Sum;
use crate::{EvalBatch, Result};

/// A streaming mean over tokens, query heads and layers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SparsitySum {
    pairs: usize,
    sum: f64,
}

impl SparsitySum {
    /// The full-attention weight on the selected tokens is `exp(lse_sparse - lse_full)`, because
    /// both softmaxes have the same numerators there.
    fn add_tokens(
        &mut self,
        lse_full: &Tensor,
        lse_sparse: &Tensor,
        valid: &[bool],
    ) -> Result<(), ModelError> {
        let heads = lse_full.last_dim();
        let (full, sparse) = (lse_full.to_vec()?, lse_sparse.to_vec()?);
        let rows = full.chunks(heads).zip(sparse.chunks(heads));
        for ((full, sparse), _) in rows.zip(valid).filter(|(_, valid)| **valid) {
            // If everything is selected, rounding may put the result slightly above 1.
            let share = |(full, sparse): (&f32, &f32)| {
                (f64::from(*sparse) - f64::from(*full)).exp().min(1.0)
            };
            self.sum += full.iter().zip(sparse).map(share).sum::<f64>();
            self.pairs += heads;
        }
        Ok(())
    }

    /// The mean so far; `None` before the first token.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.pairs > 0).then(|| self.sum / self.pairs as f64)
    }
}

impl Sum for SparsitySum {
    const NUMBERS: usize = 2;

    fn to_numbers(&self) -> Vec<f64> {
        vec![self.pairs as f64, self.sum]
    }

    fn from_numbers(numbers: &[f64]) -> Self {
        let [pairs, sum] = *numbers else { return Self::default() };
        Self { pairs: pairs as usize, sum }
    }

    fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.sum += other.sum;
    }
}

/// Runs a forward pass and adds the attention sparsity of every layer, with the blocks of
/// `selection`. Returns the final hidden states.
pub(crate) fn forward_with_sparsity(
    model: &Model,
    batch: &EvalBatch,
    attention: &AttentionOptions,
    selection: &SelectionOptions,
    sparsity: &mut SparsitySum,
) -> Result<Tensor> {
    let mut observe = |layer: LayerAttention<'_>| -> Result<(), ModelError> {
        let LayerAttention { q, k, v, documents, softmax_scale, .. } = layer;
        let block_indices = select_by_means(q, k, documents, selection, softmax_scale)?;
        let call = AttentionCall { q, k, v, documents, softmax_scale };
        let full = full_attention_fwd(&call)?;
        let sparse = sparse_attention_fwd(&call, &block_indices)?;
        sparsity.add_tokens(&full.lse, &sparse.lse, &batch.valid)
    };
    Ok(model.forward_observed(&batch.input, attention, &mut observe)?)
}
