//! Parallel loops over whole buffers.

use rayon::prelude::*;

/// Elements per parallel task: large enough to hide scheduling, small enough to spread over cores.
pub(crate) const CHUNK: usize = 16 * 1024;

/// `out[i] += other[i]`.
pub(crate) fn add_assign(out: &mut [f32], other: &[f32]) {
    out.par_chunks_mut(CHUNK).zip(other.par_chunks(CHUNK)).for_each(|(out, other)| {
        for (out, other) in out.iter_mut().zip(other) {
            *out += other;
        }
    });
}
