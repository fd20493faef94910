//! `f64` definition of softmax attention over an arbitrary set of keys per query.
//!
//! The attention methods differ only in which keys a query sees; their references pass that set to
//! this one.

use crate::contract::{Args, D, H, HQ, N, S};
use crate::{Documents, KernelError, Result};

/// The inputs of attention as plain row-major slices.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs<'a> {
    /// `[N, HQ, D]`.
    pub q: &'a [f64],
    /// `[S, H, D]`, S keys of which each query sees some.
    pub k: &'a [f64],
    /// `[S, H, D]`.
    pub v: &'a [f64],
    /// HQ.
    pub q_heads: usize,
    /// H.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Factor of every score.
    pub softmax_scale: f64,
}

/// Returns `(out, lse)`, where `visible(token, kv_head)` lists the keys that a query sees.
///
/// `out = sum_j p_j v_j` with `p = softmax(softmax_scale * q . k_j)`; zero, and lse negative
/// infinity, without keys.
///
/// # Errors
/// [`KernelError::Argument`] for sizes that do not fit and keys that do not exist.
pub fn forward(
    inputs: &AttentionInputs<'_>,
    visible: impl Fn(usize, usize) -> Vec<usize>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    inputs.args("attention::reference::forward").check()?;
    let mut out = vec![0.0; inputs.q.len()];
    let mut lse = Vec::new();
    for (row, out) in out.chunks_mut(inputs.head_dim).enumerate() {
        let keys = inputs.keys(row, &visible)?;
        let (p, row_lse) = inputs.softmax(row, &keys);
        lse.push(row_lse);
        for (p, &key) in p.iter().zip(&keys) {
            add_scaled(out, *p, inputs.row(inputs.v, key));
        }
    }
    Ok((out, lse))
}

/// Gradients `(dq, dk, dv)` for an upstream gradient `dout`: `dv_j = sum p_j dout`, `ds_j = p_j
/// (dout . v_j - dout . out)`, `dq = scale sum ds_j k_j`, `dk_j = scale sum ds_j q`.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    dout: &[f64],
    inputs: &AttentionInputs<'_>,
    visible: impl Fn(usize, usize) -> Vec<usize>,
) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    let args = inputs.args("attention::reference::backward");
    args.numbers("dout", dout, [N, HQ, D]).check()?;
    let width = inputs.head_dim;
    let (out, _) = forward(inputs, &visible)?;
    let mut dq = vec![0.0; inputs.q.len()];
    let mut dk = vec![0.0; inputs.k.len()];
    let mut dv = vec![0.0; inputs.v.len()];
    for (row, dq) in dq.chunks_mut(width).enumerate() {
        let (q, dout) = (inputs.row(inputs.q, row), inputs.row(dout, row));
        let keys = inputs.keys(row, &visible)?;
        let (p, _) = inputs.softmax(row, &keys);
        for (p, &key) in p.iter().zip(&keys) {
            let ds = p * (dot(dout, inputs.row(inputs.v, key)) - dot(dout, inputs.row(&out, row)));
            let ds = ds * inputs.softmax_scale;
            add_scaled(&mut dv[key * width..(key + 1) * width], *p, dout);
            add_scaled(&mut dk[key * width..(key + 1) * width], ds, q);
            add_scaled(dq, ds, inputs.row(inputs.k, key));
        }
    }
    Ok((dq, dk, dv))
}

impl<'a> AttentionInputs<'a> {
    /// Checks the inputs and the documents of their tokens.
    pub(crate) fn check(&self, op: &'static str, documents: &Documents) -> Result<()> {
        let args = self.args(op).entries("documents", documents.total_tokens(), "tokens", [N]);
        args.check().map(drop)
    }

    /// The contract of the inputs; a function adds its other arguments.
    fn args(&self, op: &'static str) -> Args<'static> {
        Args::new(op)
            .size("q_heads", HQ, self.q_heads)
            .size("kv_heads", H, self.kv_heads)
            .size("head_dim", D, self.head_dim)
            .numbers("q", self.q, [N, HQ, D])
            .numbers("k", self.k, [S, H, D])
            .numbers("v", self.v, [S, H, D])
    }

    fn row(&self, data: &'a [f64], row: usize) -> &'a [f64] {
        &data[row * self.head_dim..(row + 1) * self.head_dim]
    }

    /// Rows of k and v that query row `token * HQ + head` sees.
    fn keys(&self, row: usize, visible: impl Fn(usize, usize) -> Vec<usize>) -> Result<Vec<usize>> {
        let (token, head) = (row / self.q_heads, row % self.q_heads);
        let kv_head = head / (self.q_heads / self.kv_heads);
        let keys = self.k.len() / (self.kv_heads * self.head_dim);
        let row_of = |key| match key {
            key if key < keys => Ok(key * self.kv_heads + kv_head),
            key => {
                let expected = format!("keys below {keys}");
                Err(KernelError::value("attention::reference", "visible", expected, key))
            }
        };
        visible(token, kv_head).into_iter().map(row_of).collect()
    }

    fn softmax(&self, row: usize, keys: &[usize]) -> (Vec<f64>, f64) {
        let q = self.row(self.q, row);
        let score = |key: &usize| self.softmax_scale * dot(q, self.row(self.k, *key));
        let scores: Vec<f64> = keys.iter().map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            return (vec![0.0; keys.len()], max);
        }
        let lse = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
        (scores.iter().map(|s| (s - lse).exp()).collect(), lse)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(out: &mut [f64], factor: f64, x: &[f64]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out += factor * x);
}
