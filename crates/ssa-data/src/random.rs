//! Seeded random numbers, one independent stream per use.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The purpose of random numbers. Separate streams let one seed serve all purposes without
/// correlations, for example between document order and the held-out split.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    HeldOut = 1,
    DocumentOrder = 2,
    RowOrder = 3,
}

/// The finalizer of SplitMix64: a bijection that maps similar numbers far apart.
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Creates the generator of (`seed`, `purpose`, `index`): the same numbers on every platform.
pub(crate) fn generator(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    keyed_generator(seed, purpose, 0, index)
}

/// Like [`generator`], with a separate stream per corpus.
pub(crate) fn keyed_generator(seed: u64, purpose: Purpose, corpus: u32, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = purpose as u8;
    key[9..13].copy_from_slice(&corpus.to_le_bytes());
    let mut generator = ChaCha8Rng::from_seed(key);
    generator.set_stream(index);
    generator
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn every_part_of_the_key_matters() {
        let draw = |seed, purpose, index| generator(seed, purpose, index).next_u64();
        let first = draw(0, Purpose::HeldOut, 0);
        assert_eq!(first, 4_606_029_925_845_525_861, "numbers must not change");
        assert_ne!(first, draw(1, Purpose::HeldOut, 0));
        assert_ne!(first, draw(0, Purpose::RowOrder, 0));
        assert_ne!(first, draw(0, Purpose::HeldOut, 1));
    }
}
