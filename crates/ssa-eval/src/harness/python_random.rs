//! Python's `random.Random`: the few-shot draws of the harness depend on it.
//!
//! The generator is MT19937 (Matsumoto and Nishimura, "Mersenne twister: a 623-dimensionally
//! equidistributed uniform pseudo-random number generator", 1998), seeded with `init_by_array`.
//! Bounded integers, samples and floats are made of its words as in `Lib/random.py` of CPython 3.

use std::collections::HashSet;

const N: usize = 624;
const M: usize = 397;

/// A generator of the same numbers as `random.Random(seed)`.
#[derive(Clone, Debug)]
pub(super) struct PythonRandom {
    state: [u32; N],
    next: usize,
}

impl PythonRandom {
    pub(super) fn new(seed: u64) -> Self {
        let words = [seed as u32, (seed >> 32) as u32];
        let key = if words[1] == 0 { &words[..1] } else { &words[..] };
        let mut state = [0_u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            state[i] = mixed(state[i - 1], 1_812_433_253).wrapping_add(i as u32);
        }
        let mut at = 1;
        for step in 0..N.max(key.len()) {
            let word = step % key.len();
            let keyed = key[word].wrapping_add(word as u32);
            state[at] = (state[at] ^ mixed(state[at - 1], 1_664_525)).wrapping_add(keyed);
            at = after(at, &mut state);
        }
        for _ in 1..N {
            let place = at as u32;
            state[at] = (state[at] ^ mixed(state[at - 1], 1_566_083_941)).wrapping_sub(place);
            at = after(at, &mut state);
        }
        state[0] = 0x8000_0000;
        Self { state, next: N }
    }

    fn word(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let bits = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let twist = if bits & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (bits >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A float from 0 to 1, without 1, with 53 bits.
    pub(super) fn float(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// An integer below `limit`, which has at most 32 bits.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let bits = usize::BITS - limit.leading_zeros();
        loop {
            let number = (self.word() >> (32 - bits)) as usize;
            if number < limit {
                return number;
            }
        }
    }

    /// The indices that `sample` takes of a population: `count` different ones below `population`.
    pub(super) fn sample(&mut self, population: usize, count: usize) -> Vec<usize> {
        // The size of a small set, or of a table that a set of so many needs.
        let mut set_size = 21;
        if count > 5 {
            let mut table = 1;
            while table < 3 * count {
                table *= 4;
            }
            set_size += table;
        }
        if population <= set_size {
            let mut pool: Vec<usize> = (0..population).collect();
            let draw = |drawn: usize| {
                let left = population - drawn;
                let at = self.below(left);
                let index = pool[at];
                pool[at] = pool[left - 1];
                index
            };
            return (0..count.min(population)).map(draw).collect();
        }
        let mut seen = HashSet::new();
        let draw = |_| loop {
            let index = self.below(population);
            if seen.insert(index) {
                return index;
            }
        };
        (0..count).map(draw).collect()
    }
}

/// The recurrence of the seeding.
fn mixed(word: u32, factor: u32) -> u32 {
    (word ^ (word >> 30)).wrapping_mul(factor)
}

/// The place that is seeded next.
fn after(at: usize, state: &mut [u32; N]) -> usize {
    if at + 1 < N {
        return at + 1;
    }
    state[0] = state[N - 1];
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_python() {
        let cases: [(u64, usize, usize, Vec<Vec<usize>>); 6] = [
            (1234, 100, 5, vec![vec![99, 56, 14, 0, 11], vec![74, 4, 85, 88, 10]]),
            (1234, 20, 5, vec![vec![14, 3, 0, 2, 1]]),
            (0, 10000, 7, vec![vec![6311, 6890, 663, 4242, 8376, 7961, 6634]]),
            (1099511627776, 90, 6, vec![vec![13, 45, 85, 8, 54, 6]]),
            (42, 84, 6, vec![vec![81, 14, 3, 35, 31, 28]]),
            (7, 3, 3, vec![vec![1, 0, 2]]),
        ];
        for (seed, population, count, expected) in cases {
            let mut random = PythonRandom::new(seed);
            for sample in expected {
                assert_eq!(random.sample(population, count), sample, "{seed}");
            }
        }
        let mut random = PythonRandom::new(5);
        for expected in [0.6229016948897019, 0.7417869892607294, 0.7951935655656966] {
            assert_eq!(random.float(), expected);
        }
    }
}
