//! Streaming means of the attention statistics of each layer.
//!
//! Every metric is declared once, in the table below: its values, its mean, its JSON key and its
//! column follow. To log one during training, add it to [`ProbedMeans`] too.

use serde::{Deserialize, Serialize};
use ssa_kernels::Tensor;
use ssa_kernels::ops::attention::AttentionCall;
use ssa_kernels::ops::attention::selection::{BlockIndices, SelectionOptions, select_by_means};
use ssa_kernels::ops::attention::statistics::{AttentionStatistics, attention_statistics};
use ssa_model::{AttentionOptions, LayerAttention, Model, ModelError};

use crate::Result;
use crate::batch::EvalBatch;
use crate::sum::Sum;

/// How the values of all (token, query head) pairs are reduced.
#[derive(Clone, Copy)]
enum Reduction {
    Mean,
    Largest,
}

impl Reduction {
    /// Combines two partial sums, or two partial maxima.
    fn combine(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Mean => a + b,
            Self::Largest => a.max(b),
        }
    }

    /// The result over `pairs` pairs.
    fn finish(self, total: f64, pairs: f64) -> f64 {
        match self {
            Self::Mean => total / pairs,
            Self::Largest => total,
        }
    }
}

/// Declares [`AttentionMeans`] from one table of documentation, name, reduction, value of a pair,
/// column title and format.
macro_rules! attention_means {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $reduction:ident of $value:expr, $title:literal, $format:expr;
    )+) => {
        /// Means over tokens and query heads of one layer, or of all layers.
        ///
        /// Full and sparse attention are both computed from the same q, k and v, before the gate.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct AttentionMeans { $($(#[doc = $doc])+ pub $name: f64,)+ }

        impl AttentionMeans {
            /// The column title of each metric.
            pub const TITLES: &[&str] = &[$($title),+];

            /// Each metric as text, in the order of [`Self::TITLES`].
            pub fn cells(&self) -> Vec<String> {
                vec![$({
                    let format: fn(f64) -> String = $format;
                    format(self.$name)
                }),+]
            }

            /// The values of one (token, query head) pair.
            fn of_pair(statistics: &AttentionStatistics, pair: usize) -> Self {
                Self { $($name: {
                    let value: fn(&AttentionStatistics, usize) -> f64 = $value;
                    value(statistics, pair)
                },)+ }
            }

            fn to_numbers(self) -> Vec<f64> {
                vec![$(self.$name),+]
            }

            fn from_numbers(numbers: &[f64]) -> Self {
                let mut numbers = numbers.iter().copied();
                Self { $($name: numbers.next().unwrap_or_default(),)+ }
            }

            fn combine(&self, other: &Self) -> Self {
                Self { $($name: Reduction::$reduction.combine(self.$name, other.$name),)+ }
            }

            fn finish(&self, pairs: f64) -> Self {
                Self { $($name: Reduction::$reduction.finish(self.$name, pairs),)+ }
            }
        }
    };
}

attention_means! {
    /// Attention sparsity: the full-attention weight on the selected blocks.
    attention_sparsity: Mean of |all, pair| f64::from(all.sparsity[pair]),
        "sparsity", |value| format!("{value:.4}");
    /// Entropy of the full-attention distribution, in bits.
    entropy_bits: Mean of |all, pair| f64::from(all.entropy_bits[pair]),
        "entropy, bits", |value| format!("{value:.3}");
    /// The full-attention weight outside the selected blocks.
    dropped_mass: Mean of |all, pair| f64::from(all.dropped_mass[pair]),
        "dropped mass", |value| format!("{value:.4}");
    /// `|h_full - h_sparse|`, the distance of the two outputs of a head.
    distance: Mean of |all, pair| f64::from(all.distance[pair]),
        "distance", |value| format!("{value:.4}");
    /// The bound of the distance by Theorem 1: `dropped_mass * (max dropped |v| + |h_sparse|)`.
    bound: Mean of |all, pair| f64::from(all.bound[pair]),
        "bound", |value| format!("{value:.4}");
    /// The tightness of the bound: distance over bound; 1 for a pair that drops nothing, whose
    /// distance and bound are both 0.
    bound_tightness: Mean of tightness, "tightness", |value| format!("{value:.4}");
    /// The fraction of pairs whose distance is within the bound, up to rounding. It must be 1.
    bound_holds: Mean of |all, pair| f64::from(u8::from(is_within_bound(all, pair))),
        "bound holds", |value| format!("{:.2} %", 100.0 * value);
    /// The largest excess of a distance over its bound; 0 up to rounding.
    max_violation: Largest of excess, "max violation", order_of_magnitude;
    /// The mean distance between both sides of the exact identity `h_full - h_sparse = dropped_mass
    /// * (mu_tail - h_sparse)`; 0 up to rounding.
    identity_error: Mean of |all, pair| f64::from(all.identity_error[pair]),
        "identity error", order_of_magnitude;
}

/// The means that are logged during training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedMeans {
    /// See [`AttentionMeans::attention_sparsity`].
    pub attention_sparsity: f64,
    /// See [`AttentionMeans::entropy_bits`].
    pub entropy_bits: f64,
    /// See [`AttentionMeans::distance`].
    pub distance: f64,
}

impl From<&AttentionMeans> for ProbedMeans {
    fn from(means: &AttentionMeans) -> Self {
        let &AttentionMeans { attention_sparsity, entropy_bits, distance, .. } = means;
        Self { attention_sparsity, entropy_bits, distance }
    }
}

/// Distances and bounds are `f32`: if they are equal, rounding may put one this much above the
/// other.
const ROUNDING: f64 = 1e-6;

/// By how much a distance exceeds its bound.
fn excess(statistics: &AttentionStatistics, pair: usize) -> f64 {
    f64::from(statistics.distance[pair]) - f64::from(statistics.bound[pair])
}

fn tightness(statistics: &AttentionStatistics, pair: usize) -> f64 {
    match f64::from(statistics.bound[pair]) {
        0.0 => 1.0,
        bound => f64::from(statistics.distance[pair]) / bound,
    }
}

fn is_within_bound(statistics: &AttentionStatistics, pair: usize) -> bool {
    let bound = f64::from(statistics.bound[pair]);
    f64::from(statistics.distance[pair]) <= bound * (1.0 + ROUNDING) + ROUNDING
}

/// Only the order of magnitude of a rounding error matters.
fn order_of_magnitude(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}") }
}

/// What is left of a layer's attention for a closer look.
pub(crate) struct MeasuredLayer<'a> {
    pub(crate) inputs: &'a LayerAttention<'a>,
    pub(crate) block_indices: &'a BlockIndices,
    pub(crate) statistics: &'a AttentionStatistics,
    /// The mask of the tokens that are not padding.
    pub(crate) valid: &'a [bool],
}

/// Looks at a layer after its means have been added.
pub(crate) type Observe<'a> = dyn FnMut(&MeasuredLayer<'_>) -> Result<(), ModelError> + 'a;

/// The sums behind [`AttentionMeans`], which can be combined over batches and layers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AttentionSums {
    pairs: f64,
    totals: AttentionMeans,
}

impl AttentionSums {
    /// Adds the statistics of every head at the `valid` tokens.
    fn add_tokens(&mut self, statistics: &AttentionStatistics, valid: &[bool]) {
        let heads = statistics.sparsity.len() / valid.len();
        for pair in (0..statistics.sparsity.len()).filter(|pair| valid[pair / heads]) {
            self.add_pair(statistics, pair);
        }
    }

    /// Adds one (token, query head) pair.
    pub(crate) fn add_pair(&mut self, statistics: &AttentionStatistics, pair: usize) {
        self.pairs += 1.0;
        self.totals = self.totals.combine(&AttentionMeans::of_pair(statistics, pair));
    }

    /// The means so far; `None` before the first pair.
    pub(crate) fn means(&self) -> Option<AttentionMeans> {
        (self.pairs > 0.0).then(|| self.totals.finish(self.pairs))
    }

    /// The means over all of `layers`.
    pub(crate) fn overall(layers: &[Self]) -> Option<AttentionMeans> {
        let mut all = Self::default();
        layers.iter().for_each(|layer| all.add(layer));
        all.means()
    }
}

impl Sum for AttentionSums {
    const NUMBERS: usize = 1 + AttentionMeans::TITLES.len();

    fn to_numbers(&self) -> Vec<f64> {
        [vec![self.pairs], self.totals.to_numbers()].concat()
    }

    fn from_numbers(numbers: &[f64]) -> Self {
        let [pairs, totals @ ..] = numbers else { return Self::default() };
        Self { pairs: *pairs, totals: AttentionMeans::from_numbers(totals) }
    }

    fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.totals = self.totals.combine(&other.totals);
    }
}

/// Runs a forward pass and adds, per layer, the statistics of full and sparse attention on that
/// layer's q, k and v, with the blocks of `selection`. `layers` has one entry per layer. `observe`
/// gets the same q, k and v with the blocks and statistics. Returns the final hidden states.
pub(crate) fn forward_with_statistics(
    model: &Model,
    batch: &EvalBatch,
    attention: &AttentionOptions,
    selection: &SelectionOptions,
    layers: &mut [AttentionSums],
    observe: &mut Observe<'_>,
) -> Result<Tensor> {
    let mut observe = |layer: LayerAttention<'_>| -> Result<(), ModelError> {
        let LayerAttention { q, k, v, documents, softmax_scale, .. } = layer;
        let block_indices = select_by_means(q, k, documents, selection, softmax_scale)?;
        let call = AttentionCall { q, k, v, documents, softmax_scale };
        let statistics = attention_statistics(&call, &block_indices)?;
        layers[layer.layer].add_tokens(&statistics, &batch.valid);
        observe(&MeasuredLayer {
            inputs: &layer,
            block_indices: &block_indices,
            statistics: &statistics,
            valid: &batch.valid,
        })
    };
    Ok(model.forward_observed(&batch.input, attention, &mut observe)?)
}
