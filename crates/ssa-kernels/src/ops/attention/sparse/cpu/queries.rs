//! Phase 1 of the backward pass: parallel over tokens.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::chunk::{Chunk, Keys, Queries};
use super::{SparseContext, TOKENS_PER_TASK, pad_rows};
use crate::cpu::register_tile::{RowsTimesEach, SumOfEach, run};
use crate::cpu::simd::{dispatch, dot_simd, exp_row_simd};

/// Adds to dq of the chunk's tokens and fills the chunk.
pub(super) fn run_phase(
    context: &SparseContext<'_>,
    keys: &Keys,
    queries: Queries<'_>,
    chunk: &mut Chunk,
    dq: &mut [f32],
) {
    let heads = context.shape.q_heads;
    let (width, padded_width) = (heads * context.shape.head_dim, heads * context.dim());
    let scores = heads * context.scores_stride();
    let inputs = (queries.q.par_chunks_exact(width), queries.dout.par_chunks_exact(width));
    let outputs = (queries.out.par_chunks_exact(width), queries.lse.par_chunks_exact(heads));
    let kept_rows =
        (chunk.q.par_chunks_exact_mut(padded_width), chunk.dout.par_chunks_exact_mut(padded_width));
    let kept_scores = (chunk.p.par_chunks_exact_mut(scores), chunk.ds.par_chunks_exact_mut(scores));
    let tokens = (inputs, outputs, kept_rows, kept_scores, dq.par_chunks_exact_mut(width));
    let start = chunk.start;
    tokens.into_par_iter().with_min_len(TOKENS_PER_TASK).enumerate().for_each_init(
        || QueryScratch {
            matrices: Vec::with_capacity(context.block_indices.block_counts()),
            dq: vec![0.0; context.shape.group() * context.dim()],
        },
        |scratch, (token, ((q, dout), (out, lse), (kept_q, kept_dout), (p, ds), dq))| {
            let token = start + token;
            dispatch(BackwardToken {
                context,
                keys,
                token,
                q,
                dout,
                out,
                lse,
                kept_q,
                kept_dout,
                p,
                ds,
                dq,
                scratch,
            });
        },
    );
}

/// Buffers of one query group.
struct QueryScratch {
    matrices: Vec<usize>,
    dq: Vec<f32>,
}

/// All heads of one token.
struct BackwardToken<'a> {
    context: &'a SparseContext<'a>,
    keys: &'a Keys,
    token: usize,
    q: &'a [f32],
    dout: &'a [f32],
    out: &'a [f32],
    lse: &'a [f32],
    kept_q: &'a mut [f32],
    kept_dout: &'a mut [f32],
    p: &'a mut [f32],
    ds: &'a mut [f32],
    dq: &'a mut [f32],
    scratch: &'a mut QueryScratch,
}

impl WithSimd for BackwardToken<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { context, scratch, .. } = self;
        let (group, dim) = (context.shape.group(), context.shape.head_dim);
        pad_rows(self.kept_q, self.q, dim, context.softmax_scale);
        pad_rows(self.kept_dout, self.dout, dim, 1.0);
        for kv_head in 0..context.shape.kv_heads {
            let visible = context.select(self.token, kv_head, &mut scratch.matrices);
            let heads = kv_head * group..(kv_head + 1) * group;
            let scores = heads.start * context.scores_stride()..heads.end * context.scores_stride();
            let rows = heads.start * context.dim()..heads.end * context.dim();
            let (p, ds) = (&mut self.p[scores.clone()], &mut self.ds[scores]);
            for (x, packed, out) in [
                (&self.kept_q[rows.clone()], &self.keys.k_transposed, &mut *p),
                (&self.kept_dout[rows], &self.keys.v_transposed, &mut *ds),
            ] {
                let matrices = packed.select(&scratch.matrices);
                let (x_stride, out_stride) = (context.dim(), context.scores_stride());
                let mut product = RowsTimesEach { x, x_stride, matrices, out, out_stride };
                run(simd, group, context.slot(), &mut product);
            }
            let used = scratch.matrices.len() * context.slot();
            let strided = p
                .chunks_exact_mut(context.scores_stride())
                .zip(ds.chunks_exact_mut(context.scores_stride()));
            for (head, (p, ds)) in heads.clone().zip(strided) {
                let (p, ds) = (&mut p[..used], &mut ds[..used]);
                context.mask(p, visible);
                exp_row_simd(simd, p, 1.0, self.lse[head]);
                let row = head * dim..(head + 1) * dim;
                let delta = dot_simd(simd, &self.dout[row.clone()], &self.out[row]);
                ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = *p * (*ds - delta));
            }
            scratch.dq.fill(0.0);
            let mut product = SumOfEach {
                x: ds,
                x_stride: context.scores_stride(),
                slot_stride: context.slot(),
                matrices: self.keys.k.select(&scratch.matrices),
                out: &mut scratch.dq,
            };
            run(simd, group, context.dim(), &mut product);
            let dq = self.dq[heads.start * dim..heads.end * dim].chunks_exact_mut(dim);
            for (dq, sum) in dq.zip(scratch.dq.chunks_exact(context.dim())) {
                dq.iter_mut().zip(sum).for_each(|(dq, sum)| *dq += context.softmax_scale * sum);
            }
        }
    }
}
