//! `f64` definition of the statistics, by way of the references of both attentions.

use super::super::reference::{AttentionInputs, forward};
use super::super::selection::HostBlockIndices;
use crate::Result;

/// The fields of [`AttentionStatistics`](super::AttentionStatistics) in `f64`, in their order.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn statistics(
    inputs: &AttentionInputs<'_>,
    block_indices: &HostBlockIndices,
) -> Result<[Vec<f64>; 7]> {
    const OP: &str = "statistics::reference";
    inputs.check(OP, block_indices.documents())?;
    block_indices.check_fits(OP, block_indices.documents(), inputs.kv_heads)?;
    let AttentionInputs { q, k, v, q_heads, kv_heads, head_dim, softmax_scale } = *inputs;
    let starts: Vec<usize> = block_indices.documents().starts().collect();
    let is_selected = |token: usize, kv_head: usize, key: usize| {
        let block = (key - starts[token]) / block_indices.block_size();
        block_indices.selected(token, kv_head).contains(&(block as i32))
    };
    let (full, lse) = forward(inputs, |token, _| (starts[token]..=token).collect())?;
    let (sparse, _) = forward(inputs, |token, kv_head| {
        (starts[token]..=token).filter(|&key| is_selected(token, kv_head, key)).collect()
    })?;
    let row = |x: &[f64], index: usize| x[index * head_dim..(index + 1) * head_dim].to_vec();
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut fields: [Vec<f64>; 7] = Default::default();
    for (query, lse) in lse.into_iter().enumerate() {
        let (token, kv_head) = (query / q_heads, query % q_heads / (q_heads / kv_heads));
        let (h_full, h_sparse) = (row(&full, query), row(&sparse, query));
        let [mut sparsity, mut entropy, mut delta, mut largest] = [0.0; 4];
        let mut tail = vec![0.0; head_dim];
        for key in starts[token]..=token {
            let [k, v] = [k, v].map(|x| row(x, key * kv_heads + kv_head));
            let score =
                softmax_scale * row(q, query).iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
            let p = (score - lse).exp();
            entropy -= if p > 0.0 { p * p.log2() } else { 0.0 };
            if is_selected(token, kv_head, key) {
                sparsity += p;
            } else {
                delta += p;
                largest = f64::max(largest, norm(&v));
                tail.iter_mut().zip(v).for_each(|(tail, v)| *tail += p * v);
            }
        }
        let difference: Vec<f64> =
            h_full.iter().zip(&h_sparse).map(|(full, sparse)| full - sparse).collect();
        let predicted = tail.iter().zip(&h_sparse).map(|(tail, sparse)| tail - delta * sparse);
        let error: Vec<f64> = difference.iter().zip(predicted).map(|(a, b)| a - b).collect();
        let bound = delta * (largest + norm(&h_sparse));
        let values = [sparsity, entropy, delta, largest, norm(&difference), bound, norm(&error)];
        fields.iter_mut().zip(values).for_each(|(field, value)| field.push(value));
    }
    Ok(fields)
}
