//! Embeddings on the CPU: rows gathered in parallel, gradients scattered without conflicts.

use rayon::prelude::*;

use super::by_id::TokensById;
use crate::Result;
use crate::cpu::elementwise::rows_per_chunk;

pub(super) fn forward(ids: &[u32], weight: &[f32], out: &mut [f32], hidden: usize) {
    let rows = rows_per_chunk(hidden);
    out.par_chunks_mut(rows * hidden).zip(ids.par_chunks(rows)).for_each(|(out, ids)| {
        for (out, &id) in out.chunks_exact_mut(hidden).zip(ids) {
            out.copy_from_slice(&weight[id as usize * hidden..][..hidden]);
        }
    });
}

/// Tokens are grouped by id, in token order; then every row of `dweight` has one owner.
///
/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(super) fn backward(
    dout: &[f32],
    ids: &[u32],
    dweight: &mut [f32],
    hidden: usize,
) -> Result<()> {
    let by_id = TokensById::new(ids, dweight.len() / hidden)?;
    dweight.par_chunks_exact_mut(hidden).enumerate().for_each(|(id, dweight)| {
        for &token in &by_id.tokens[by_id.range(id)] {
            for (dweight, dout) in
                dweight.iter_mut().zip(&dout[token as usize * hidden..][..hidden])
            {
                *dweight += dout;
            }
        }
    });
    Ok(())
}
