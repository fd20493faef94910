//! The forward pass, parallel over tokens.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::packed::Packed;
use super::{SparseContext, TOKENS_PER_TASK, pad_rows};
use crate::Result;
use crate::cpu::register_tile::{RowsTimesEach, SumOfEach, run};
use crate::cpu::simd::{dispatch, exp_row_simd, max_row_simd};
use crate::ops::attention::shape::AttentionShape;

/// Writes `out` and `lse` of every token.
///
/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(crate) fn forward(
    context: &SparseContext<'_>,
    [q, k, v]: [&[f32]; 3],
    out: &mut [f32],
    lse: &mut [f32],
) -> Result<()> {
    let AttentionShape { q_heads, kv_heads, head_dim, .. } = context.shape;
    let k = Packed::transposed(k, &context.blocks, context.block_size, kv_heads, head_dim)?;
    let v = Packed::blocks(v, &context.blocks, context.block_size, kv_heads, head_dim)?;
    let rows =
        q.par_chunks_exact(q_heads * head_dim).zip(out.par_chunks_exact_mut(q_heads * head_dim));
    rows.zip(lse.par_chunks_exact_mut(q_heads))
        .with_min_len(TOKENS_PER_TASK)
        .enumerate()
        .for_each_init(
            || ForwardScratch::new(context),
            |scratch, (token, ((q, out), lse))| {
                dispatch(ForwardToken { context, k: &k, v: &v, token, q, out, lse, scratch });
            },
        );
    Ok(())
}

/// Buffers of one query group.
struct ForwardScratch {
    matrices: Vec<usize>,
    q: Vec<f32>,
    scores: Vec<f32>,
    /// Softmax denominators.
    sums: Vec<f32>,
    out: Vec<f32>,
}

impl ForwardScratch {
    fn new(context: &SparseContext<'_>) -> Self {
        let group = context.shape.group();
        Self {
            matrices: Vec::with_capacity(context.block_indices.block_counts()),
            q: vec![0.0; group * context.dim()],
            scores: vec![0.0; group * context.scores_stride()],
            sums: vec![0.0; group],
            out: vec![0.0; group * context.dim()],
        }
    }
}

/// All heads of one token.
struct ForwardToken<'a> {
    context: &'a SparseContext<'a>,
    k: &'a Packed,
    v: &'a Packed,
    token: usize,
    q: &'a [f32],
    out: &'a mut [f32],
    lse: &'a mut [f32],
    scratch: &'a mut ForwardScratch,
}

impl WithSimd for ForwardToken<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { context, k, v, token, q, out, lse, scratch } = self;
        let (group, dim) = (context.shape.group(), context.shape.head_dim);
        let heads = q.chunks_exact(group * dim).zip(out.chunks_exact_mut(group * dim));
        for (kv_head, ((q, out), lse)) in heads.zip(lse.chunks_exact_mut(group)).enumerate() {
            let visible = context.select(token, kv_head, &mut scratch.matrices);
            pad_rows(&mut scratch.q, q, dim, context.softmax_scale);
            let mut scores = RowsTimesEach {
                x: &scratch.q,
                x_stride: context.dim(),
                matrices: k.select(&scratch.matrices),
                out: &mut scratch.scores,
                out_stride: context.scores_stride(),
            };
            run(simd, group, context.slot(), &mut scores);
            let rows = scratch.scores.chunks_exact_mut(context.scores_stride());
            for ((scores, lse), sum) in rows.zip(lse.iter_mut()).zip(&mut scratch.sums) {
                let scores = &mut scores[..scratch.matrices.len() * context.slot()];
                context.mask(scores, visible);
                let max = max_row_simd(simd, scores);
                *sum = exp_row_simd(simd, scores, 1.0, max);
                *lse = max + sum.ln();
            }
            scratch.out.fill(0.0);
            let mut values = SumOfEach {
                x: &scratch.scores,
                x_stride: context.scores_stride(),
                slot_stride: context.slot(),
                matrices: v.select(&scratch.matrices),
                out: &mut scratch.out,
            };
            run(simd, group, context.dim(), &mut values);
            let rows = out.chunks_exact_mut(dim).zip(scratch.out.chunks_exact(context.dim()));
            for ((out, sum_of_values), sum) in rows.zip(&scratch.sums) {
                let inverse = 1.0 / sum;
                out.iter_mut().zip(sum_of_values).for_each(|(out, x)| *out = inverse * x);
            }
        }
    }
}
