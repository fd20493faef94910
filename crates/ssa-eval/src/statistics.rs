//! Streaming means of what full and sparse attention do in each layer.

use serde::{Deserialize, Serialize};
use ssa_kernels::Tensor;
use ssa_kernels::ops::attention::AttentionCall;
use ssa_kernels::ops::attention::selection::{SelectionOptions, select_by_means};
use ssa_kernels::ops::attention::statistics::{AttentionStatistics, attention_statistics};
use ssa_model::{AttentionOptions, LayerAttention, Model, ModelError};

use crate::{EvalBatch, Result};

/// Means over tokens and query heads of one layer, or of all layers.
///
/// Full and sparse attention are both computed from the same q, k and v, before the gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AttentionMeans {
    /// Attention sparsity: the full-attention weight that lies on the selected blocks.
    pub attention_sparsity: f64,
    /// Entropy of the full-attention distribution, in bits.
    pub entropy_bits: f64,
    /// The full-attention weight outside the selected blocks.
    pub dropped_mass: f64,
    /// `|h_full - h_sparse|`, the distance of the two outputs of a head.
    pub distance: f64,
    /// The bound of the distance by Theorem 1: `dropped_mass * (max dropped |v| + |h_sparse|)`.
    pub bound: f64,
    /// The share of (token, head) pairs whose distance is within the bound, up to rounding. It must
    /// be 1.
    pub bound_holds: f64,
    /// The largest amount by which a distance exceeds its bound; 0, or rounding.
    pub max_violation: f64,
    /// The mean distance between both sides of the exact identity
    /// `h_full - h_sparse = dropped_mass * (mu_tail - h_sparse)`; rounding alone.
    pub identity_error: f64,
}

/// Sums from which [`AttentionMeans`] follow, so that batches and layers of any number can be
/// combined.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AttentionSums {
    pairs: f64,
    sparsity: f64,
    entropy_bits: f64,
    dropped_mass: f64,
    distance: f64,
    bound: f64,
    within_bound: f64,
    max_violation: f64,
    identity_error: f64,
}

/// Distances and bounds come as `f32`: where they are equal, rounding may put one this much above
/// the other.
const ROUNDING: f64 = 1e-6;

impl AttentionSums {
    /// Adds the statistics of every head at the tokens that are `valid`.
    fn add(&mut self, statistics: &AttentionStatistics, valid: &[bool]) {
        let heads = statistics.sparsity.len() / valid.len();
        let pairs = (0..statistics.sparsity.len()).filter(|pair| valid[pair / heads]);
        for pair in pairs {
            let at = |values: &[f32]| f64::from(values[pair]);
            let (distance, bound) = (at(&statistics.distance), at(&statistics.bound));
            self.pairs += 1.0;
            self.sparsity += at(&statistics.sparsity);
            self.entropy_bits += at(&statistics.entropy_bits);
            self.dropped_mass += at(&statistics.dropped_mass);
            self.distance += distance;
            self.bound += bound;
            self.within_bound +=
                f64::from(u8::from(distance <= bound * (1.0 + ROUNDING) + ROUNDING));
            self.max_violation = self.max_violation.max(distance - bound);
            self.identity_error += at(&statistics.identity_error);
        }
    }

    fn merge(mut self, other: &Self) -> Self {
        self.pairs += other.pairs;
        self.sparsity += other.sparsity;
        self.entropy_bits += other.entropy_bits;
        self.dropped_mass += other.dropped_mass;
        self.distance += other.distance;
        self.bound += other.bound;
        self.within_bound += other.within_bound;
        self.max_violation = self.max_violation.max(other.max_violation);
        self.identity_error += other.identity_error;
        self
    }

    /// The means so far; none before the first pair.
    pub(crate) fn means(&self) -> Option<AttentionMeans> {
        let mean = |sum: f64| sum / self.pairs;
        (self.pairs > 0.0).then(|| AttentionMeans {
            attention_sparsity: mean(self.sparsity),
            entropy_bits: mean(self.entropy_bits),
            dropped_mass: mean(self.dropped_mass),
            distance: mean(self.distance),
            bound: mean(self.bound),
            bound_holds: mean(self.within_bound),
            max_violation: self.max_violation,
            identity_error: mean(self.identity_error),
        })
    }

    /// The means over all of `layers`.
    pub(crate) fn overall(layers: &[Self]) -> Option<AttentionMeans> {
        layers.iter().fold(Self::default(), |all, layer| all.merge(layer)).means()
    }
}

/// A forward pass that also adds, per layer, what full and sparse attention would do with that
/// layer's q, k and v if `selection` chose the blocks. `layers` has one entry per layer. Returns
/// the final hidden states.
pub(crate) fn forward_with_statistics(
    model: &Model,
    batch: &EvalBatch,
    attention: &AttentionOptions,
    selection: &SelectionOptions,
    layers: &mut [AttentionSums],
) -> Result<Tensor> {
    let mut observe = |layer: LayerAttention<'_>| -> Result<(), ModelError> {
        let LayerAttention { q, k, v, documents, softmax_scale, .. } = layer;
        let block_indices = select_by_means(q, k, documents, selection, softmax_scale)?;
        let call = AttentionCall { q, k, v, documents, softmax_scale };
        let statistics = attention_statistics(&call, &block_indices)?;
        layers[layer.layer].add(&statistics, &batch.valid);
        Ok(())
    };
    Ok(model.forward_observed(&batch.input, attention, &mut observe)?)
}
