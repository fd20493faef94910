//! Reproducible random inputs.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// A seeded source of test inputs: the same seed gives the same values on every platform.
pub struct Random(ChaCha8Rng);

impl Random {
    /// Creates a source with a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Standard normal values rounded to `f32`, so that an `f32` op and its `f64` reference see the
    /// same input.
    pub fn normal(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| StandardNormal.sample(&mut self.0)).collect()
    }

    /// Integers below `bound`.
    pub fn below(&mut self, bound: u32, len: usize) -> Vec<u32> {
        (0..len).map(|_| self.0.random_range(0..bound)).collect()
    }

    /// Random document lengths that add up to `tokens`: cumulative, from 0.
    pub fn cu_seqlens(&mut self, tokens: usize, longest: usize) -> Vec<usize> {
        let mut offsets = vec![0];
        let mut end = 0;
        while end < tokens {
            end = tokens.min(end + 1 + (self.0.next_u32() as usize) % longest);
            offsets.push(end);
        }
        offsets
    }
}
