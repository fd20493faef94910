//! A random permutation in constant memory.

use rand::Rng;

use crate::random::{Purpose, keyed_generator, mix};

/// Half as many rounds already look random; the rest is margin, at a nanosecond each.
const ROUNDS: usize = 8;
/// With fewer than two times four bits there are too few round functions to reach all orders
/// evenly.
const LEAST_HALF_BITS: u32 = 4;

/// A seeded permutation of `0..len`: [`get`](Self::get) finds any element in constant time and
/// memory.
///
/// A Feistel network permutes numbers with an even number of bits, at most four times as many as
/// needed (256 for a short list). Results outside `0..len` go through the network again until one
/// is inside (cycle walking), which keeps it a permutation.
#[derive(Clone, Debug)]
pub(crate) struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// Creates the permutation of (`seed`, `purpose`, `corpus`, `index`): the same on every
    /// platform.
    pub(crate) fn new(len: u64, seed: u64, purpose: Purpose, corpus: u32, index: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let mut generator = keyed_generator(seed, purpose, corpus, index);
        Self {
            len,
            half_bits: bits.div_ceil(2).max(LEAST_HALF_BITS),
            keys: std::array::from_fn(|_| generator.next_u64()),
        }
    }

    /// Element `position` of the permutation.
    pub(crate) fn get(&self, position: u64) -> u64 {
        debug_assert!(position < self.len, "{position} of {}", self.len);
        let mut element = self.rounds(position);
        while element >= self.len {
            element = self.rounds(element);
        }
        element
    }

    fn rounds(&self, number: u64) -> u64 {
        let mask = u64::MAX >> (u64::BITS - self.half_bits);
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn order(len: u64, seed: u64, epoch: u64) -> Vec<u64> {
        let permutation = Permutation::new(len, seed, Purpose::RowOrder, 0, epoch);
        (0..len).map(|position| permutation.get(position)).collect()
    }

    #[test]
    fn every_element_occurs_once() {
        for len in (1..70).chain([255, 256, 257, 1000, 65_536, 65_537, 100_000]) {
            let mut elements = order(len, 3, 0);
            elements.sort_unstable();
            assert!(elements.into_iter().eq(0..len), "{len}");
        }
    }

    #[test]
    fn huge_lists_cost_nothing() {
        for len in [1 << 40, u64::MAX] {
            let permutation = Permutation::new(len, 0, Purpose::RowOrder, 0, 0);
            let first: Vec<u64> = (0..100).map(|position| permutation.get(position)).collect();
            assert!(first.iter().all(|&element| element < len));
            assert!(first.iter().any(|&element| element > len / 2));
        }
    }

    #[test]
    fn all_orders_of_a_short_list_are_equally_likely() {
        let draws = 24_000_u64;
        let mut counts = HashMap::new();
        for seed in 0..draws {
            *counts.entry(order(4, seed, 0)).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        // 1000 expected of each; five standard deviations are 155.
        assert!(counts.values().all(|&count| (845..1155).contains(&count)), "{counts:?}");
    }

    #[test]
    fn neighbors_are_separated() {
        // In a random order of 10,000 the mean distance of neighbors is a third of the length.
        let elements = order(10_000, 1, 0);
        let distances = elements.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
        let mean = distances.sum::<u64>() as f64 / 9999.0;
        assert!((mean - 3333.0).abs() < 120.0, "{mean}");
        let in_place =
            elements.iter().enumerate().filter(|&(at, &element)| at as u64 == element).count();
        assert!(in_place < 8, "one expected: {in_place}");
    }

    #[test]
    fn the_order_is_the_same_on_every_platform() {
        assert_eq!(order(10, 42, 0), [7, 1, 6, 3, 2, 9, 4, 0, 5, 8], "numbers must not change");
        assert_ne!(order(100, 1, 0), order(100, 2, 0));
        assert_ne!(order(100, 1, 0), order(100, 1, 1));
        let of_corpus = |corpus| Permutation::new(100, 1, Purpose::RowOrder, corpus, 0).get(0);
        assert_ne!([0, 1, 2].map(of_corpus), [of_corpus(0); 3]);
    }
}
