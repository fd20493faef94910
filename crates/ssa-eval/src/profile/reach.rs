//! How far back selected blocks are, how far back full attention looks, and which blocks an oracle
//! would select.
//!
//! The mass of block `c` for a query token and a key/value head is `M_c`, the sum of `p` over the
//! keys of the block, averaged over the query heads of the group. `S` are the selected blocks, and
//! the oracle's blocks `O` are the `|S|` ones with the largest `M_c`, ties to the lower index.
//! Selection itself sees block means only, so it cannot know `M_c`.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use ssa_kernels::Tensor;
use ssa_kernels::ops::attention::selection::{BlockIndices, HostBlockIndices};
use ssa_kernels::ops::linear::linear_fwd_f32;
use ssa_model::{LayerAttention, ModelError};

use super::bins::{DISTANCES, distance_bin, distances_of};

/// Scores that are computed together, 8 MiB.
const TILE_SCORES: usize = 1 << 21;

/// Blocks at a range of distances from the block of the query.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistanceShare {
    /// The smallest distance in blocks; 0 is the query's own block.
    pub from: usize,
    /// The largest distance.
    pub to: usize,
    /// The share of all selected blocks that are at this distance.
    pub selected: f64,
    /// The full-attention weight at this distance. It adds up to 1 over all distances.
    pub attention: f64,
    /// The part of that weight on blocks that are not selected. It adds up to the dropped mass.
    pub dropped: f64,
}

/// The selected blocks against the same number of blocks with the most true mass.
///
/// Means over the tokens and key/value heads with more blocks than they may select: others have no
/// choice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OracleAgreement {
    /// The share of the selected blocks that the oracle selects too, `|S ∩ O| / |S|`.
    pub agreement: f64,
    /// The full-attention weight on the selected blocks.
    pub selected_mass: f64,
    /// The full-attention weight on the oracle's blocks, the most that any selection can keep.
    pub oracle_mass: f64,
}

/// The sums behind both.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReachSums {
    /// Tokens times key/value heads.
    queries: f64,
    selected: [f64; DISTANCES],
    attention: [f64; DISTANCES],
    dropped: [f64; DISTANCES],
    /// Queries with a choice.
    choices: f64,
    agreement: f64,
    selected_mass: f64,
    oracle_mass: f64,
}

impl ReachSums {
    /// Adds the `valid` tokens of a layer.
    pub(super) fn add(
        &mut self,
        layer: &LayerAttention<'_>,
        block_indices: &BlockIndices,
        valid: &[bool],
    ) -> Result<(), ModelError> {
        let (q, k) = (layer.q.to_vec()?, layer.k.to_vec()?);
        let layer = Layer {
            indices: block_indices.to_host()?,
            head_dim: layer.q.last_dim(),
            group: q.len() / k.len(),
            q,
            k,
            inputs: layer,
            valid,
        };
        for document in layer.inputs.documents.ranges().filter(|document| !document.is_empty()) {
            for kv_head in 0..block_indices.kv_heads() {
                self.add_head(&layer, &document, kv_head)?;
            }
        }
        Ok(())
    }

    /// Adds a key/value head in a document, in tiles of tokens.
    fn add_head(
        &mut self,
        layer: &Layer<'_>,
        document: &Range<usize>,
        kv_head: usize,
    ) -> Result<(), ModelError> {
        let keys = layer.keys(document, kv_head)?;
        let tokens = (TILE_SCORES / (layer.group * document.len())).max(1);
        for start in document.clone().step_by(tokens) {
            let tile = start..document.end.min(start + tokens);
            let seen = tile.end - document.start;
            // No query of the tile sees a key after the tile.
            let queries = layer.queries(&tile, kv_head)?;
            let scores = linear_fwd_f32(&queries, &keys.rows_range(0..seen)?)?.to_vec()?;
            let of_token = |(scores, token): (&[f32], usize)| {
                let context = token + 1 - document.start;
                let heads = scores.chunks(seen).map(|head| &head[..context]);
                of_query(&layer.masses(heads), &layer.indices, token, kv_head)
            };
            let rows = scores.par_chunks(layer.group * seen).zip(tile);
            let rows = rows.filter(|(_, token)| layer.valid[*token]);
            let found: Vec<Self> = rows.map(of_token).collect();
            found.iter().for_each(|query| self.merge(query));
        }
        Ok(())
    }

    fn merge(&mut self, other: &Self) {
        self.queries += other.queries;
        for (sums, others) in [
            (&mut self.selected, &other.selected),
            (&mut self.attention, &other.attention),
            (&mut self.dropped, &other.dropped),
        ] {
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        }
        self.choices += other.choices;
        self.agreement += other.agreement;
        self.selected_mass += other.selected_mass;
        self.oracle_mass += other.oracle_mass;
    }

    pub(super) fn by_distance(&self) -> Vec<DistanceShare> {
        let selected: f64 = self.selected.iter().sum();
        let share = |bin: usize| {
            let (from, to) = distances_of(bin);
            DistanceShare {
                from,
                to,
                selected: self.selected[bin] / selected,
                attention: self.attention[bin] / self.queries,
                dropped: self.dropped[bin] / self.queries,
            }
        };
        let is_used = |bin: &usize| self.attention[*bin] > 0.0;
        (0..DISTANCES).filter(is_used).map(share).collect()
    }

    pub(super) fn oracle(&self) -> Option<OracleAgreement> {
        (self.choices > 0.0).then(|| OracleAgreement {
            agreement: self.agreement / self.choices,
            selected_mass: self.selected_mass / self.choices,
            oracle_mass: self.oracle_mass / self.choices,
        })
    }
}

/// A layer in host memory.
struct Layer<'a> {
    inputs: &'a LayerAttention<'a>,
    q: Vec<f32>,
    k: Vec<f32>,
    indices: HostBlockIndices,
    head_dim: usize,
    /// Query heads of a key/value head.
    group: usize,
    valid: &'a [bool],
}

impl Layer<'_> {
    /// The keys of a head, `[tokens, D]`.
    fn keys(&self, tokens: &Range<usize>, kv_head: usize) -> Result<Tensor, ModelError> {
        let width = self.k.len() / self.valid.len();
        let keys = columns(&self.k, tokens, width, kv_head * self.head_dim, self.head_dim);
        let keys = Tensor::from_vec(keys, [tokens.len(), self.head_dim])?;
        Ok(keys.to_device(&self.inputs.k.device(), self.inputs.k.dtype())?)
    }

    /// The queries of the group of a key/value head, `[tokens * group, D]`.
    fn queries(&self, tokens: &Range<usize>, kv_head: usize) -> Result<Tensor, ModelError> {
        let width = self.q.len() / self.valid.len();
        let count = self.group * self.head_dim;
        let queries = columns(&self.q, tokens, width, kv_head * count, count);
        let queries = Tensor::from_vec(queries, [tokens.len() * self.group, self.head_dim])?;
        Ok(queries.to_device(&self.inputs.q.device(), self.inputs.q.dtype())?)
    }

    /// `M_c` of each block, from the scores of the heads of a group without their scale.
    fn masses<'s>(&self, heads: impl Iterator<Item = &'s [f32]>) -> Vec<f64> {
        let scale = self.inputs.softmax_scale;
        let mut masses = Vec::new();
        for scores in heads {
            let max = scores.iter().fold(f32::NEG_INFINITY, |max, &score| max.max(score));
            let weight = |&score: &f32| f64::from((scale * (score - max)).exp());
            let blocks = scores.chunks(self.indices.block_size());
            let blocks: Vec<f64> = blocks.map(|block| block.iter().map(weight).sum()).collect();
            let total = self.group as f64 * blocks.iter().sum::<f64>();
            masses.resize(blocks.len(), 0.0);
            masses.iter_mut().zip(&blocks).for_each(|(mass, block)| *mass += block / total);
        }
        masses
    }
}

/// `count` columns from `first` of some rows of a matrix whose rows have `width` columns.
fn columns(x: &[f32], rows: &Range<usize>, width: usize, first: usize, count: usize) -> Vec<f32> {
    let start = |row: usize| row * width + first;
    rows.clone().flat_map(|row| &x[start(row)..start(row) + count]).copied().collect()
}

/// What one token and key/value head adds.
fn of_query(masses: &[f64], indices: &HostBlockIndices, token: usize, kv_head: usize) -> ReachSums {
    let mut sums = ReachSums { queries: 1.0, ..ReachSums::default() };
    let selected: Vec<usize> =
        indices.selected(token, kv_head).iter().map(|&block| block as usize).collect();
    let current = masses.len() - 1;
    let mut is_selected = vec![false; masses.len()];
    for &block in &selected {
        is_selected[block] = true;
        sums.selected[distance_bin(current - block)] += 1.0;
    }
    for (block, (&mass, &is_selected)) in masses.iter().zip(&is_selected).enumerate() {
        let bin = distance_bin(current - block);
        sums.attention[bin] += mass;
        sums.dropped[bin] += if is_selected { 0.0 } else { mass };
    }
    if selected.len() < masses.len() {
        let mut order: Vec<usize> = (0..masses.len()).collect();
        order.sort_by(|&a, &b| masses[b].total_cmp(&masses[a]));
        let oracle = &order[..selected.len()];
        let common = oracle.iter().filter(|&&block| is_selected[block]).count();
        sums.choices = 1.0;
        sums.agreement = common as f64 / selected.len() as f64;
        sums.selected_mass = selected.iter().map(|&block| masses[block]).sum();
        sums.oracle_mass = oracle.iter().map(|&block| masses[block]).sum();
    }
    sums
}
