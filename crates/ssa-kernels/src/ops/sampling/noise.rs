//! Random numbers without a state: a function of what they are for.

/// What the noise of a request depends on, besides position and token.
///
/// The number for a token at a position comes from Philox4x32-10 (Salmon et al., "Parallel random
/// numbers: as easy as 1, 2, 3", 2011) with the key `seed` and the counter
/// `[token / 2, position, request]`, whose four words hold the numbers of two tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoiseKey {
    /// The seed of the user.
    pub seed: u64,
    /// Tells requests of the same seed apart.
    pub request: u64,
}

impl NoiseKey {
    /// The noise of one position: the number of tokens before it.
    pub(super) fn at(self, position: u32) -> PositionNoise {
        PositionNoise { key: self, position, pair: None }
    }
}

/// The noise of one position.
pub(super) struct PositionNoise {
    key: NoiseKey,
    position: u32,
    /// The last pair of tokens, with its numbers.
    pair: Option<(u32, [f64; 2])>,
}

impl PositionNoise {
    /// The uniform number of a token, above 0 and at most 1.
    pub(super) fn uniform(&mut self, token: u32) -> f64 {
        let pair = token / 2;
        let numbers = match self.pair {
            Some((known, numbers)) if known == pair => numbers,
            _ => {
                let NoiseKey { seed, request } = self.key;
                let [request, request_high] = words(request);
                let counter = [pair, self.position, request, request_high];
                let [a, b, c, d] = philox(counter, words(seed));
                [uniform(a, b), uniform(c, d)]
            }
        };
        self.pair = Some((pair, numbers));
        numbers[(token % 2) as usize]
    }
}

/// The low and the high word.
fn words(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

/// `(n + 1/2) 2^-53` of the upper 53 bits.
fn uniform(low: u32, high: u32) -> f64 {
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    (bits as f64 + 0.5) * (0.5_f64).powi(53)
}

/// Philox4x32 with 10 rounds.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let first = words(u64::from(counter[0]) * MULTIPLIERS[0]);
        let second = words(u64::from(counter[2]) * MULTIPLIERS[1]);
        counter =
            [second[1] ^ counter[1] ^ key[0], second[0], first[1] ^ counter[3] ^ key[1], first[0]];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' Random123 library.
    #[test]
    fn philox_is_the_published_one() {
        let digits = |counter, key, expected| assert_eq!(philox(counter, key), expected);
        digits([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        digits([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        digits(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        );
    }

    #[test]
    fn numbers_do_not_depend_on_the_order_of_calls() {
        let key = NoiseKey { seed: 7, request: 1 << 40 };
        let mut noise = key.at(3);
        let ascending: Vec<f64> = (0..9).map(|token| noise.uniform(token)).collect();
        let mut noise = key.at(3);
        let mut descending: Vec<f64> = (0..9).rev().map(|token| noise.uniform(token)).collect();
        descending.reverse();
        assert_eq!(ascending, descending);
        let mut all: Vec<f64> = [key, NoiseKey { seed: 8, ..key }, NoiseKey { request: 0, ..key }]
            .into_iter()
            .flat_map(|key| [3, 4].map(|position| (key, position)))
            .flat_map(|(key, position)| {
                let mut noise = key.at(position);
                (0..9).map(move |token| noise.uniform(token))
            })
            .collect();
        assert!(all.iter().all(|number| (0.0..=1.0).contains(number)));
        all.sort_by(f64::total_cmp);
        all.dedup();
        assert_eq!(all.len(), 54, "all differ");
    }

    #[test]
    fn numbers_are_within_their_interval_at_its_ends() {
        assert!(uniform(0, 0) > 0.0);
        assert!(uniform(u32::MAX, u32::MAX) <= 1.0);
    }
}
