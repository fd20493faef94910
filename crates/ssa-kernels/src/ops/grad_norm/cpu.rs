//! Sums of squares on the CPU: blocks in parallel, each in vector lanes.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::cpu::simd::dispatch;

pub(super) use crate::cpu::elementwise::CHUNK;

/// Partial sums of a block: two of the widest vectors of `f64`, so that additions overlap.
const LANES: usize = 16;

/// Blocks never span two slices, so the order of additions follows from the lengths alone.
pub(super) fn square_sums<'a>(slices: impl Iterator<Item = &'a [f32]>) -> Vec<f64> {
    let blocks: Vec<&[f32]> = slices.flat_map(|slice| slice.chunks(CHUNK)).collect();
    blocks.into_par_iter().map(|block| dispatch(Block(block))).collect()
}

struct Block<'a>(&'a [f32]);

impl WithSimd for Block<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let (head, tail) = self.0.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for values in head {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        let tail: f64 = tail.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
        sums.iter().sum::<f64>() + tail
    }
}
