//! Embeddings on the CPU: rows gathered in parallel, gradients scattered without conflicts.

use rayon::prelude::*;

use crate::cpu::elementwise::rows_per_chunk;

pub(super) fn forward(ids: &[u32], weight: &[f32], out: &mut [f32], hidden: usize) {
    let rows = rows_per_chunk(hidden);
    out.par_chunks_mut(rows * hidden).zip(ids.par_chunks(rows)).for_each(|(out, ids)| {
        for (out, &id) in out.chunks_exact_mut(hidden).zip(ids) {
            out.copy_from_slice(&weight[id as usize * hidden..][..hidden]);
        }
    });
}

/// A counting sort groups the tokens by id, in token order; then every row of `dweight` has one owner.
pub(super) fn backward(dout: &[f32], ids: &[u32], dweight: &mut [f32], hidden: usize) {
    let vocab = dweight.len() / hidden;
    // After counting, `ends[id]` is where the tokens of `id` begin; placing them moves it to where they end.
    let mut ends = vec![0; vocab + 1];
    for &id in ids {
        ends[id as usize + 1] += 1;
    }
    for id in 0..vocab {
        ends[id + 1] += ends[id];
    }
    let mut tokens = vec![0; ids.len()];
    for (token, &id) in ids.iter().enumerate() {
        tokens[ends[id as usize]] = token;
        ends[id as usize] += 1;
    }
    dweight.par_chunks_exact_mut(hidden).enumerate().for_each(|(id, dweight)| {
        let begin = if id == 0 { 0 } else { ends[id - 1] };
        for token in &tokens[begin..ends[id]] {
            for (dweight, dout) in dweight.iter_mut().zip(&dout[token * hidden..][..hidden]) {
                *dweight += dout;
            }
        }
    });
}
