//! Arithmetic of a plain computation in `bf16`.

use ssa_kernels::ops::attention::reference::Inputs;

/// The nearest `bf16`.
pub fn bf16(value: f64) -> f64 {
    half::bf16::from_f64(value).to_f64()
}

/// Twice every element: what a gradient is that was added twice.
pub fn twice(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&value| 2.0 * value).collect()
}

/// The same in plain `bf16`: a gradient that is added to is rounded twice.
pub fn added_twice(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&value| bf16(2.0 * bf16(value))).collect()
}

/// The nearest `bf16` of every element.
pub fn round(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&value| bf16(value)).collect()
}

/// Attention and its gradients.
pub(crate) struct Attention {
    pub(crate) out: Vec<f64>,
    pub(crate) lse: Vec<f64>,
    pub(crate) dq: Vec<f64>,
    pub(crate) dk: Vec<f64>,
    pub(crate) dv: Vec<f64>,
}

/// Attention over the keys that `visible(token, kv_head)` lists, as a program computes it that keeps every matrix in `bf16`:
/// scores, probabilities, outputs and their gradients are rounded, sums are not.
pub(crate) fn attention(
    dout: &[f64],
    inputs: &Inputs<'_>,
    visible: impl Fn(usize, usize) -> Vec<usize>,
) -> Attention {
    let Inputs { q, k, v, q_heads, kv_heads, head_dim, softmax_scale } = *inputs;
    let row = |index: usize| index * head_dim..(index + 1) * head_dim;
    let mut result = Attention {
        out: vec![0.0; q.len()],
        lse: Vec::new(),
        dq: vec![0.0; q.len()],
        dk: vec![0.0; k.len()],
        dv: vec![0.0; v.len()],
    };
    for query in 0..q.len() / head_dim {
        let (token, kv_head) = (query / q_heads, query % q_heads / (q_heads / kv_heads));
        let keys: Vec<usize> = visible(token, kv_head).iter().map(|key| key * kv_heads + kv_head).collect();
        let (q, dout) = (&q[row(query)], &dout[row(query)]);
        let scores: Vec<f64> = keys.iter().map(|&key| bf16(softmax_scale * dot(q, &k[row(key)]))).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
        result.lse.push(if keys.is_empty() { max } else { max + sum.ln() });
        let p: Vec<f64> = scores.iter().map(|score| bf16((score - max).exp() / sum)).collect();
        let dp: Vec<f64> = keys.iter().map(|&key| bf16(dot(dout, &v[row(key)]))).collect();
        let out = &mut result.out[query * head_dim..][..head_dim];
        for (&key, p) in keys.iter().zip(&p) {
            add_scaled(out, *p, &v[row(key)]);
        }
        out.iter_mut().for_each(|value| *value = bf16(*value));
        let delta = dot(out, dout);
        for ((&key, p), dp) in keys.iter().zip(&p).zip(&dp) {
            let ds = softmax_scale * bf16(p * (dp - delta));
            add_scaled(&mut result.dq[query * head_dim..][..head_dim], ds, &k[row(key)]);
            add_scaled(&mut result.dk[key * head_dim..][..head_dim], ds, q);
            add_scaled(&mut result.dv[key * head_dim..][..head_dim], *p, dout);
        }
    }
    for values in [&mut result.dq, &mut result.dk, &mut result.dv] {
        values.iter_mut().for_each(|value| *value = bf16(*value));
    }
    result
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(out: &mut [f64], factor: f64, x: &[f64]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out += factor * x);
}
