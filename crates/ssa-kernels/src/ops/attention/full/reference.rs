//! `f64` definition of causal attention over a window of the document.

use crate::Documents;

/// The inputs of one call.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// `[N, HQ, D]`.
    pub q: &'a [f64],
    /// `[N, H, D]`.
    pub k: &'a [f64],
    /// `[N, H, D]`.
    pub v: &'a [f64],
    /// HQ.
    pub q_heads: usize,
    /// H.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Document borders.
    pub documents: &'a Documents,
    /// Keys a query sees at most, its own included; `usize::MAX` for full attention.
    pub window_size: usize,
    /// Factor of the scores.
    pub softmax_scale: f64,
}

impl Problem<'_> {
    /// Calls `visit` with every query, numbered `token * HQ + head`, and the key rows it sees, numbered
    /// `token * H + kv_head`.
    fn for_each_query(&self, mut visit: impl FnMut(usize, Vec<usize>)) {
        let group = self.q_heads / self.kv_heads;
        for document in self.documents.ranges() {
            for t in document.clone() {
                let first = document.start.max((t + 1).saturating_sub(self.window_size));
                for head in 0..self.q_heads {
                    let keys = (first..=t).map(|j| j * self.kv_heads + head / group).collect();
                    visit(t * self.q_heads + head, keys);
                }
            }
        }
    }

    /// Probabilities of the given keys and the logarithm of their denominator.
    fn softmax(&self, query: usize, keys: &[usize]) -> (Vec<f64>, f64) {
        let q = row(self.q, query, self.head_dim);
        let scores: Vec<f64> =
            keys.iter().map(|&key| self.softmax_scale * dot(q, row(self.k, key, self.head_dim))).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
        (scores.iter().map(|s| (s - lse).exp()).collect(), lse)
    }
}

/// Returns `(out, lse)`.
pub fn forward(problem: &Problem<'_>) -> (Vec<f64>, Vec<f64>) {
    let head_dim = problem.head_dim;
    let mut out = vec![0.0; problem.q.len()];
    let mut lse = vec![0.0; problem.q.len() / head_dim];
    problem.for_each_query(|query, keys| {
        let probabilities;
        (probabilities, lse[query]) = problem.softmax(query, &keys);
        for (&key, p) in keys.iter().zip(probabilities) {
            add_scaled(row_mut(&mut out, query, head_dim), p, row(problem.v, key, head_dim));
        }
    });
    (out, lse)
}

/// Returns `[dq, dk, dv]` for an upstream gradient `dout` `[N, HQ, D]`.
pub fn backward(problem: &Problem<'_>, dout: &[f64]) -> [Vec<f64>; 3] {
    let Problem { q, k, v, head_dim, softmax_scale, .. } = *problem;
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.len()]);
    problem.for_each_query(|query, keys| {
        let dout = row(dout, query, head_dim);
        let (probabilities, _) = problem.softmax(query, &keys);
        let dp: Vec<f64> = keys.iter().map(|&key| dot(dout, row(v, key, head_dim))).collect();
        let mean = dot(&probabilities, &dp);
        for ((&key, p), dp) in keys.iter().zip(probabilities).zip(dp) {
            let ds = softmax_scale * p * (dp - mean);
            add_scaled(row_mut(&mut dv, key, head_dim), p, dout);
            add_scaled(row_mut(&mut dq, query, head_dim), ds, row(k, key, head_dim));
            add_scaled(row_mut(&mut dk, key, head_dim), ds, row(q, query, head_dim));
        }
    });
    [dq, dk, dv]
}

fn row(x: &[f64], index: usize, width: usize) -> &[f64] {
    &x[index * width..(index + 1) * width]
}

fn row_mut(x: &mut [f64], index: usize, width: usize) -> &mut [f64] {
    &mut x[index * width..(index + 1) * width]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(out: &mut [f64], factor: f64, x: &[f64]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out += factor * x);
}
