//! Parallel loops over whole buffers.

use rayon::prelude::*;

/// Elements per parallel task: large enough to hide scheduling, small enough to spread over cores.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Whole rows of `width` elements per parallel task, about [`CHUNK`] elements and at least one row.
pub(crate) fn rows_per_chunk(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// `out[i] += other[i]`.
pub(crate) fn add_assign(out: &mut [f32], other: &[f32]) {
    out.par_chunks_mut(CHUNK).zip(other.par_chunks(CHUNK)).for_each(|(out, other)| {
        for (out, other) in out.iter_mut().zip(other) {
            *out += other;
        }
    });
}
