//! Block means on the CPU: one parallel task per block, vectorized over heads and dimensions.

use rayon::prelude::*;

use super::super::blocks::Blocks;

/// Fewest blocks of a task: a single block is too little work to schedule.
const BLOCKS_PER_TASK: usize = 8;

pub(super) fn forward(x: &[f32], blocks: &Blocks, width: usize, pooled: &mut [f32]) {
    let pooled = pooled.par_chunks_exact_mut(width).with_min_len(BLOCKS_PER_TASK);
    pooled.enumerate().for_each(|(block, pooled)| {
        let tokens = blocks.range(block);
        let mean = 1.0 / tokens.len() as f32;
        pooled.fill(0.0);
        for x in x[tokens.start * width..tokens.end * width].chunks_exact(width) {
            pooled.iter_mut().zip(x).for_each(|(pooled, x)| *pooled += x);
        }
        pooled.iter_mut().for_each(|pooled| *pooled *= mean);
    });
}

pub(super) fn backward(dpooled: &[f32], blocks: &Blocks, width: usize, dx: &mut [f32]) {
    // Blocks differ in length, so no iterator of rayon splits dx.
    let mut parts = Vec::with_capacity(blocks.len());
    let mut rest = dx;
    for block in 0..blocks.len() {
        let (part, after) = rest.split_at_mut(blocks.range(block).len() * width);
        parts.push(part);
        rest = after;
    }
    let tasks =
        parts.into_par_iter().with_min_len(BLOCKS_PER_TASK).zip(dpooled.par_chunks_exact(width));
    tasks.for_each(|(dx, dpooled)| {
        let mean = width as f32 / dx.len() as f32;
        for dx in dx.chunks_exact_mut(width) {
            dx.iter_mut().zip(dpooled).for_each(|(dx, dpooled)| *dx += mean * dpooled);
        }
    });
}
