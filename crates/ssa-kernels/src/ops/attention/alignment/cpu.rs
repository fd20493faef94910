//! The alignment loss on the CPU: chunks of whole tokens in parallel.

use rayon::prelude::*;

use super::AlignmentKind;
use crate::cpu::elementwise::CHUNK;

/// The one-sided sum over valid tokens of `width` elements.
pub(super) fn forward(
    full: &[f32],
    sparse: &[f32],
    valid: Option<&[bool]>,
    width: usize,
    kind: AlignmentKind,
) -> f64 {
    match kind {
        AlignmentKind::SmoothL1 => sum(full, sparse, valid, width, |d| {
            // d² / 2 for |d| < 1, else |d| - 1/2, without a branch.
            let clamped = d.abs().min(1.0);
            clamped * (d.abs() - 0.5 * clamped)
        }),
        AlignmentKind::Mse => sum(full, sparse, valid, width, |d| d * d),
    }
}

/// `out += scale * derivative of the distance at full - sparse`.
pub(super) fn backward(
    full: &[f32],
    sparse: &[f32],
    valid: Option<&[bool]>,
    width: usize,
    kind: AlignmentKind,
    scale: f32,
    out: &mut [f32],
) {
    match kind {
        AlignmentKind::SmoothL1 => {
            add(full, sparse, valid, width, out, |d| scale * d.clamp(-1.0, 1.0))
        }
        AlignmentKind::Mse => add(full, sparse, valid, width, out, |d| scale * 2.0 * d),
    }
}

fn sum(
    full: &[f32],
    sparse: &[f32],
    valid: Option<&[bool]>,
    width: usize,
    distance: impl Fn(f64) -> f64 + Sync,
) -> f64 {
    /// Partial sums of a chunk; element `i` of a token enters sum `i % LANES`, so that the compiler
    /// can vectorize.
    const LANES: usize = 8;
    let chunk = tokens_per_chunk(width);
    let sums: Vec<f64> = full
        .par_chunks(chunk * width)
        .zip(sparse.par_chunks(chunk * width))
        .enumerate()
        .map(|(index, (full, sparse))| {
            let mut lanes = [0.0; LANES];
            let tokens = full.chunks_exact(width).zip(sparse.chunks_exact(width));
            for (_, (full, sparse)) in
                tokens.enumerate().filter(|(t, _)| is_valid(valid, index * chunk + t))
            {
                for (full, sparse) in full.chunks(LANES).zip(sparse.chunks(LANES)) {
                    for ((lane, full), sparse) in lanes.iter_mut().zip(full).zip(sparse) {
                        *lane += distance(f64::from(*full) - f64::from(*sparse));
                    }
                }
            }
            lanes.iter().sum()
        })
        .collect();
    sums.iter().sum()
}

fn add(
    full: &[f32],
    sparse: &[f32],
    valid: Option<&[bool]>,
    width: usize,
    out: &mut [f32],
    gradient: impl Fn(f32) -> f32 + Sync,
) {
    let chunk = tokens_per_chunk(width);
    let inputs = full.par_chunks(chunk * width).zip(sparse.par_chunks(chunk * width));
    out.par_chunks_mut(chunk * width).zip(inputs).enumerate().for_each(
        |(index, (out, (full, sparse)))| {
            let inputs = full.chunks_exact(width).zip(sparse.chunks_exact(width));
            for (t, (out, (full, sparse))) in out.chunks_exact_mut(width).zip(inputs).enumerate() {
                if is_valid(valid, index * chunk + t) {
                    for ((out, full), sparse) in out.iter_mut().zip(full).zip(sparse) {
                        *out += gradient(full - sparse);
                    }
                }
            }
        },
    );
}

/// Whole tokens of a parallel chunk.
fn tokens_per_chunk(width: usize) -> usize {
    (CHUNK / width).max(1)
}

fn is_valid(valid: Option<&[bool]>, token: usize) -> bool {
    valid.is_none_or(|valid| valid[token])
}
