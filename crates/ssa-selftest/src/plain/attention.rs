//! Attention as a program computes it that keeps every matrix: scores, probabilities, outputs and
//! their gradients.

use std::ops::Range;

use ssa_kernels::Documents;
use ssa_kernels::ops::attention::reference::AttentionInputs;
use ssa_kernels::ops::attention::selection::HostBlockIndices;

use super::Rounding;

/// The keys that queries see, as rows of k.
pub(crate) enum Visible {
    /// In a row, for every token.
    Ranges(Vec<Range<usize>>),
    /// Those of selected blocks; `starts` is where the document of a token begins.
    Blocks { block_indices: HostBlockIndices, starts: Vec<usize> },
}

impl Visible {
    pub(crate) fn full(documents: &Documents) -> Self {
        Self::window(documents, usize::MAX)
    }

    pub(crate) fn window(documents: &Documents, window_size: usize) -> Self {
        let first = |start: usize, token: usize| start.max((token + 1).saturating_sub(window_size));
        let row = |(token, start)| first(start, token)..token + 1;
        Self::Ranges(documents.starts().enumerate().map(row).collect())
    }

    pub(crate) fn compression(documents: &Documents, block_size: usize) -> Self {
        let mut ranges = Vec::new();
        let mut first = 0;
        for document in documents.ranges() {
            ranges.extend((1..=document.len()).map(|seen| first..first + seen / block_size));
            first += document.len().div_ceil(block_size);
        }
        Self::Ranges(ranges)
    }

    pub(crate) fn sparse(block_indices: HostBlockIndices) -> Self {
        Self::Blocks { starts: block_indices.documents().starts().collect(), block_indices }
    }

    fn keys(&self, token: usize, kv_head: usize) -> Vec<usize> {
        match self {
            Self::Ranges(ranges) => ranges[token].clone().collect(),
            Self::Blocks { block_indices, starts } => {
                let block_size = block_indices.block_size();
                let first = |block: &i32| starts[token] + *block as usize * block_size;
                let keys =
                    |block| (first(block)..first(block) + block_size).filter(|&key| key <= token);
                block_indices.selected(token, kv_head).iter().flat_map(keys).collect()
            }
        }
    }
}

/// What attention rounds how.
#[derive(Clone, Copy)]
pub(crate) struct Roundings {
    /// Scores, probabilities and their gradients.
    pub(crate) inside: Rounding,
    /// What it returns.
    pub(crate) result: Rounding,
}

impl Roundings {
    pub(crate) const BF16: Self = Self { inside: Rounding::BF16, result: Rounding::BF16 };
}

/// Returns `(out, lse)`.
pub(crate) fn forward(
    inputs: &AttentionInputs<'_>,
    visible: &Visible,
    roundings: Roundings,
) -> (Vec<f64>, Vec<f64>) {
    let mut out = vec![0.0; inputs.q.len()];
    let mut lse = Vec::new();
    for (query, out) in out.chunks_mut(inputs.head_dim).enumerate() {
        let keys = keys(inputs, visible, query);
        let (p, row_lse) = probabilities(inputs, query, &keys, roundings.inside);
        lse.push(row_lse);
        for (&key, p) in keys.iter().zip(&p) {
            add_scaled(out, *p, row(inputs.v, key, inputs.head_dim));
        }
    }
    (roundings.result.matrix(out), lse)
}

/// Gradients `[dq, dk, dv]` for an upstream gradient `dout`, with the output `out` of [`forward`].
pub(crate) fn backward(
    dout: &[f64],
    out: &[f64],
    inputs: &AttentionInputs<'_>,
    visible: &Visible,
    roundings: Roundings,
) -> [Vec<f64>; 3] {
    let AttentionInputs { q, k, v, head_dim, softmax_scale, .. } = *inputs;
    let round = |value| roundings.inside.number(value);
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|values| vec![0.0; values.len()]);
    for (query, dq) in dq.chunks_mut(head_dim).enumerate() {
        let keys = keys(inputs, visible, query);
        let (p, _) = probabilities(inputs, query, &keys, roundings.inside);
        let [q, dout, out] = [q, dout, out].map(|values| row(values, query, head_dim));
        let delta = dot(out, dout);
        for (&key, p) in keys.iter().zip(&p) {
            let dp = round(dot(dout, row(v, key, head_dim)));
            let ds = softmax_scale * round(p * (dp - delta));
            add_scaled(dq, ds, row(k, key, head_dim));
            add_scaled(&mut dk[key * head_dim..][..head_dim], ds, q);
            add_scaled(&mut dv[key * head_dim..][..head_dim], *p, dout);
        }
    }
    [dq, dk, dv].map(|values| roundings.result.matrix(values))
}

/// The rows of k and v that row `query` of q sees.
fn keys(inputs: &AttentionInputs<'_>, visible: &Visible, query: usize) -> Vec<usize> {
    let AttentionInputs { q_heads, kv_heads, .. } = *inputs;
    let (token, kv_head) = (query / q_heads, query % q_heads / (q_heads / kv_heads));
    visible.keys(token, kv_head).iter().map(|key| key * kv_heads + kv_head).collect()
}

/// The softmax of a query's scores and its log-normalizer.
fn probabilities(
    inputs: &AttentionInputs<'_>,
    query: usize,
    keys: &[usize],
    rounding: Rounding,
) -> (Vec<f64>, f64) {
    let AttentionInputs { q, k, head_dim, softmax_scale, .. } = *inputs;
    let q = row(q, query, head_dim);
    let score = |&key: &usize| rounding.number(softmax_scale * dot(q, row(k, key, head_dim)));
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
    let p = scores.iter().map(|score| rounding.number((score - max).exp() / sum)).collect();
    (p, if keys.is_empty() { max } else { max + sum.ln() })
}

fn row(values: &[f64], index: usize, width: usize) -> &[f64] {
    &values[index * width..][..width]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(out: &mut [f64], factor: f64, x: &[f64]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out += factor * x);
}
