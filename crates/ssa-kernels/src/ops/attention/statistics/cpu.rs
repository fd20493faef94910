//! Statistics on the CPU: two passes over the keys of each query, parallel over tokens.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::AttentionStatistics;
use crate::Result;
use crate::cpu::simd::dispatch;
use crate::host_memory::{collected, listed, reserved, zeros};
use crate::ops::attention::selection::HostBlockIndices;
use crate::ops::attention::shape::AttentionShape;

/// A checked call on the CPU.
pub(super) struct SparseSlices<'a> {
    /// `[N, HQ, D]`.
    pub(super) q: &'a [f32],
    /// `[N, H, D]`.
    pub(super) k: &'a [f32],
    /// `[N, H, D]`.
    pub(super) v: &'a [f32],
    pub(super) block_indices: &'a HostBlockIndices,
    pub(super) softmax_scale: f32,
    pub(super) shape: AttentionShape,
}

/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(super) fn compare(call: &SparseSlices<'_>) -> Result<AttentionStatistics> {
    let values = call.v.par_chunks(call.shape.head_dim);
    let mut norms = reserved(values.len())?;
    values.map(norm_f32).collect_into_vec(&mut norms);
    let documents = call.block_indices.documents();
    let starts = listed(documents.total_tokens(), documents.starts())?;
    let mut rows = zeros::<HeadStatistics>(starts.len() * call.shape.q_heads)?;
    rows.par_chunks_exact_mut(call.shape.q_heads).zip(starts).enumerate().for_each(
        |(token, (rows, start))| {
            dispatch(TokenStatistics { call, norms: &norms, start, token, rows });
        },
    );
    let column =
        |value: fn(&HeadStatistics) -> f64| collected(rows.iter().map(|row| value(row) as f32));
    Ok(AttentionStatistics {
        sparsity: column(|row| row.sparsity)?,
        entropy_bits: column(|row| row.entropy_bits)?,
        dropped_mass: column(|row| row.dropped_mass)?,
        max_dropped_value_norm: column(|row| row.max_dropped_value_norm)?,
        distance: column(|row| row.distance)?,
        bound: column(|row| row.bound)?,
        identity_error: column(|row| row.identity_error)?,
    })
}

/// The statistics of one token and query head.
#[derive(Clone, Default)]
struct HeadStatistics {
    sparsity: f64,
    entropy_bits: f64,
    dropped_mass: f64,
    max_dropped_value_norm: f64,
    distance: f64,
    bound: f64,
    identity_error: f64,
}

/// All query heads of one token. It implements `WithSimd` so that the compiler uses the instruction
/// set of the processor.
struct TokenStatistics<'a> {
    call: &'a SparseSlices<'a>,
    /// `|v_j|` per token and key/value head.
    norms: &'a [f64],
    /// First token of the document.
    start: usize,
    token: usize,
    /// A result for each head.
    rows: &'a mut [HeadStatistics],
}

impl WithSimd for TokenStatistics<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let shape = &self.call.shape;
        for kv_head in 0..shape.kv_heads {
            let selected = self.selected(kv_head);
            for head in kv_head * shape.group()..(kv_head + 1) * shape.group() {
                self.rows[head] = self.row(head, kv_head, &selected);
            }
        }
    }
}

impl TokenStatistics<'_> {
    /// For each key of the document up to the token, whether a selected block holds it.
    fn selected(&self, kv_head: usize) -> Vec<bool> {
        let mut selected = vec![false; self.token + 1 - self.start];
        let block_size = self.call.block_indices.block_size();
        for &block in self.call.block_indices.selected(self.token, kv_head) {
            let first = block as usize * block_size;
            let end = selected.len().min(first + block_size);
            selected[first..end].fill(true);
        }
        selected
    }

    #[inline(always)]
    fn row(&self, head: usize, kv_head: usize, selected: &[bool]) -> HeadStatistics {
        let shape = &self.call.shape;
        let (kv_heads, head_dim) = (shape.kv_heads, shape.head_dim);
        let q = head_row(self.call.q, self.token * shape.q_heads + head, head_dim);
        let q: Vec<f64> = q.iter().map(|&x| f64::from(x)).collect();
        let key_row = |index: usize| (self.start + index) * kv_heads + kv_head;

        let mut scores = Vec::with_capacity(selected.len());
        let mut full = Softmax::new(head_dim);
        let mut sparse = Softmax::new(head_dim);
        for (index, &selected) in selected.iter().enumerate() {
            let k = head_row(self.call.k, key_row(index), head_dim);
            let score = f64::from(self.call.softmax_scale) * dot(&q, k);
            full.max = full.max.max(score);
            if selected {
                sparse.max = sparse.max.max(score);
            }
            scores.push(score);
        }

        let mut dropped = Softmax { max: full.max, ..Softmax::new(head_dim) };
        let mut score_sum = 0.0;
        let mut max_dropped_value_norm = 0.0f64;
        for (index, (&selected, &score)) in selected.iter().zip(&scores).enumerate() {
            let v = head_row(self.call.v, key_row(index), head_dim);
            score_sum += score * full.add(score, v);
            if selected {
                sparse.add(score, v);
            } else {
                dropped.add(score, v);
                max_dropped_value_norm = max_dropped_value_norm.max(self.norms[key_row(index)]);
            }
        }
        let lse = full.max + full.sum.ln();
        let dropped_mass = dropped.sum / full.sum;
        let h_sparse: Vec<f64> = sparse.out.iter().map(|x| x / sparse.sum).collect();
        let difference: Vec<f64> =
            full.out.iter().zip(&h_sparse).map(|(x, sparse)| x / full.sum - sparse).collect();
        // delta * mu_tail is the dropped part of the full output.
        let predicted = dropped
            .out
            .iter()
            .zip(&h_sparse)
            .map(|(x, sparse)| x / full.sum - dropped_mass * sparse);
        HeadStatistics {
            sparsity: sparse.sum * (sparse.max - full.max).exp() / full.sum,
            entropy_bits: (lse - score_sum / full.sum) / std::f64::consts::LN_2,
            dropped_mass,
            max_dropped_value_norm,
            distance: norm(difference.iter().copied()),
            bound: dropped_mass * (max_dropped_value_norm + norm(h_sparse.iter().copied())),
            identity_error: norm(difference.iter().zip(predicted).map(|(a, b)| a - b)),
        }
    }
}

/// A softmax-weighted sum of values, relative to a maximum known in advance, in `f64`: the results
/// are differences of nearly equal numbers. (Selection, which only ranks, has its own in `f32`.)
struct Softmax {
    max: f64,
    sum: f64,
    out: Vec<f64>,
}

impl Softmax {
    fn new(head_dim: usize) -> Self {
        Self { max: f64::NEG_INFINITY, sum: 0.0, out: vec![0.0; head_dim] }
    }

    /// Adds a key and returns its weight, `e^(score - max)`.
    #[inline(always)]
    fn add(&mut self, score: f64, v: &[f32]) -> f64 {
        let weight = (score - self.max).exp();
        self.sum += weight;
        for (out, v) in self.out.iter_mut().zip(v) {
            *out += weight * f64::from(*v);
        }
        weight
    }
}

#[inline(always)]
fn head_row(x: &[f32], row: usize, head_dim: usize) -> &[f32] {
    &x[row * head_dim..(row + 1) * head_dim]
}

/// `a . b` in eight partial sums, which a compiler can vectorize.
#[inline(always)]
fn dot(a: &[f64], b: &[f32]) -> f64 {
    let (a_chunks, a_tail) = a.as_chunks::<8>();
    let (b_chunks, b_tail) = b.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * f64::from(*b);
        }
    }
    let tail: f64 = a_tail.iter().zip(b_tail).map(|(a, b)| a * f64::from(*b)).sum();
    lanes.iter().sum::<f64>() + tail
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

fn norm_f32(x: &[f32]) -> f64 {
    norm(x.iter().map(|&x| f64::from(x)))
}
