//! Where sparse attention reads and what it drops: by head, by position and by distance.
//!
//! An [`AttentionProfile`] belongs to the hidden states of one inference mode and covers all
//! layers. `p` is the full-attention distribution of a query head, as in
//! [`AttentionStatistics`](ssa_kernels::ops::attention::statistics::AttentionStatistics).

mod bins;
mod divergence;
mod reach;

use serde::{Deserialize, Serialize};
use ssa_model::{AttentionMode, ModelError};

use crate::attention_means::{AttentionMeans, AttentionSums, MeasuredLayer};
use bins::{POSITIONS, position_bin, positions_of};
use reach::ReachSums;

pub(crate) use divergence::DivergenceSums;
pub use reach::{DistanceShare, OracleAgreement};

/// Attention under the hidden states of one inference mode, in detail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionProfile {
    /// The inference mode that produced the hidden states.
    pub mode: AttentionMode,
    /// The means of each query head of each layer: `heads[layer][head]`.
    pub heads: Vec<Vec<AttentionMeans>>,
    /// The means over all layers by the number of tokens that a query can see.
    pub by_context: Vec<ContextMeans>,
    /// Blocks by their distance from the block of the query, nearest first.
    pub by_distance: Vec<DistanceShare>,
    /// The selected blocks against those with the most true mass; `None` if no query had to choose.
    pub oracle: Option<OracleAgreement>,
}

/// Means over the queries that see a number of tokens of their document, themselves included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextMeans {
    /// The smallest number of tokens.
    pub from: usize,
    /// The largest number of tokens.
    pub to: usize,
    /// Mean `KL(p_full || p_sparse)` of the next-token distributions in nats; `None` without
    /// targets, and for methods without full attention.
    pub kl_full_sparse: Option<f64>,
    /// The means of attention.
    #[serde(flatten)]
    pub means: AttentionMeans,
}

/// The sums behind an [`AttentionProfile`].
pub(crate) struct ProfileSums {
    heads: Vec<Vec<AttentionSums>>,
    contexts: Vec<AttentionSums>,
    reach: ReachSums,
}

impl ProfileSums {
    pub(crate) fn new(layers: usize, heads: usize) -> Self {
        Self {
            heads: vec![vec![AttentionSums::default(); heads]; layers],
            contexts: vec![AttentionSums::default(); POSITIONS],
            reach: ReachSums::default(),
        }
    }

    /// Adds a layer.
    pub(crate) fn add(&mut self, layer: &MeasuredLayer<'_>) -> Result<(), ModelError> {
        let MeasuredLayer { inputs, block_indices, statistics, valid } = *layer;
        let heads = &mut self.heads[inputs.layer];
        let count = heads.len();
        let positions = inputs.documents.positions();
        for (token, position) in positions.enumerate().filter(|(at, _)| valid[*at]) {
            let context = &mut self.contexts[position_bin(position)];
            for (head, sums) in heads.iter_mut().enumerate() {
                let pair = token * count + head;
                sums.add_pair(statistics, pair);
                context.add_pair(statistics, pair);
            }
        }
        self.reach.add(inputs, block_indices, valid)
    }

    /// The profile; `None` without a token.
    pub(crate) fn finish(
        &self,
        mode: AttentionMode,
        divergences: Option<&DivergenceSums>,
    ) -> Option<AttentionProfile> {
        let context = |(bin, sums): (usize, &AttentionSums)| {
            let (first, last) = positions_of(bin);
            let kl_full_sparse = divergences.and_then(|sums| sums.mean(bin));
            let means = sums.means()?;
            Some(ContextMeans { from: first + 1, to: last + 1, kl_full_sparse, means })
        };
        let means = |heads: &Vec<AttentionSums>| heads.iter().map(AttentionSums::means).collect();
        Some(AttentionProfile {
            mode,
            heads: self.heads.iter().map(means).collect::<Option<_>>()?,
            by_context: self.contexts.iter().enumerate().filter_map(context).collect(),
            by_distance: self.reach.by_distance(),
            oracle: self.reach.oracle(),
        })
    }
}
