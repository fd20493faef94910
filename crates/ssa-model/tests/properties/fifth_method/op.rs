//! The op folder of the fifth method: attention with equal weights.

use ssa_kernels::ops::attention::{AttentionCall, AttentionGrads, AttentionOutput};
use ssa_kernels::{Documents, KernelError, Tensor};

/// `out[t, hq]` is the mean of `v[s, h]` over the tokens `s <= t` of the document. `q` gives the
/// shape `[B, T, HQ, D]`, `v` is `[B, T, H, D]`.
pub(crate) fn mean_attention_fwd(
    &AttentionCall { q, v, documents, .. }: &AttentionCall<'_>,
) -> Result<AttentionOutput, KernelError> {
    let mut out = vec![0.0; q.len()];
    let values = v.as_slice()?;
    for_each_pair(q, v, documents, |to, from, weight| out[to] += weight * values[from]);
    let lse = Tensor::zeros(&q.shape()[..3])?;
    Ok(AttentionOutput { out: Tensor::from_vec(out, q.shape())?, lse })
}

/// Adds the gradient of `v`, given the gradient `dout` of the output.
pub(crate) fn mean_attention_bwd(
    dout: &Tensor,
    &AttentionCall { v, documents, .. }: &AttentionCall<'_>,
    grads: &mut AttentionGrads,
) -> Result<(), KernelError> {
    let (dv, douts) = (grads.dv.as_mut_slice()?, dout.as_slice()?);
    for_each_pair(dout, v, documents, |from, to, weight| dv[to] += weight * douts[from]);
    Ok(())
}

/// Calls `visit` with the index of an output, the index of a value in its mean, and the weight.
fn for_each_pair(
    q: &Tensor,
    v: &Tensor,
    documents: &Documents,
    mut visit: impl FnMut(usize, usize, f32),
) {
    let [q_heads, kv_heads, head_dim] = [q.shape()[2], v.shape()[2], q.shape()[3]];
    for document in documents.ranges() {
        for query in document.clone() {
            let weight = ((query - document.start + 1) as f32).recip();
            for key in document.start..=query {
                for q_head in 0..q_heads {
                    let kv_head = q_head * kv_heads / q_heads;
                    let to = (query * q_heads + q_head) * head_dim;
                    let from = (key * kv_heads + kv_head) * head_dim;
                    (0..head_dim).for_each(|dim| visit(to + dim, from + dim, weight));
                }
            }
        }
    }
}
