//! Seeded random numbers, one independent stream per use.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What random numbers are drawn for. Uses are kept apart so that one user seed can serve them all without
/// the order of documents, say, following from the choice of held-out documents.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    HeldOut = 1,
    DocumentOrder = 2,
    RowOrder = 3,
}

/// The generator of (`seed`, `purpose`, `index`): the same numbers on every platform, at any time.
pub(crate) fn generator(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = purpose as u8;
    let mut generator = ChaCha8Rng::from_seed(key);
    generator.set_stream(index);
    generator
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn every_part_of_the_key_counts() {
        let draw = |seed, purpose, index| generator(seed, purpose, index).next_u64();
        let first = draw(0, Purpose::HeldOut, 0);
        assert_eq!(first, 4_606_029_925_845_525_861, "numbers must not change");
        assert_ne!(first, draw(1, Purpose::HeldOut, 0));
        assert_ne!(first, draw(0, Purpose::RowOrder, 0));
        assert_ne!(first, draw(0, Purpose::HeldOut, 1));
    }
}
