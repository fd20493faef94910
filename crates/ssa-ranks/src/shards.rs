//! Which rank owns which elements of which parameter.

use std::ops::Range;

/// Pieces begin at multiples of this many elements: a multiple of the chunks in which every device
/// adds squares for the norm, so that a piece has the same partial sums as the whole.
pub const BLOCK: usize = 65_536;

/// The owner of every element of every parameter.
///
/// Each parameter is divided into one contiguous piece for each rank, in the order of the ranks:
/// blocks of [`BLOCK`] elements, as many for each rank as possible. The remainder rotates over the
/// ranks with the parameter, so small parameters do not all belong to one rank. With `b` blocks and
/// `n` ranks, rank `r` owns these blocks of parameter `p`:
///
/// ```text
/// (r * b + p mod n) / n  ..  ((r + 1) * b + p mod n) / n
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    ranks: usize,
    lengths: Vec<usize>,
}

impl ShardMap {
    /// The map of parameters of these lengths over at least one rank.
    pub fn new(lengths: impl IntoIterator<Item = usize>, ranks: usize) -> Self {
        Self { ranks: ranks.max(1), lengths: lengths.into_iter().collect() }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.lengths.len()
    }

    /// Number of ranks.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// Number of elements of a parameter; 0 for one that does not exist.
    pub fn length(&self, parameter: usize) -> usize {
        self.lengths.get(parameter).copied().unwrap_or(0)
    }

    /// The elements of a parameter that a rank owns; empty for a parameter that does not exist.
    pub fn piece(&self, parameter: usize, rank: usize) -> Range<usize> {
        let length = self.length(parameter);
        let blocks = length.div_ceil(BLOCK) as u128;
        let (ranks, shift) = (self.ranks as u128, (parameter % self.ranks) as u128);
        let border = |rank: usize| {
            let block = (rank as u128 * blocks + shift) / ranks;
            (block as usize).saturating_mul(BLOCK).min(length)
        };
        border(rank)..border(rank + 1)
    }

    /// The pieces of a parameter in the order of the ranks.
    pub fn pieces(&self, parameter: usize) -> impl Iterator<Item = Range<usize>> {
        (0..self.ranks).map(move |rank| self.piece(parameter, rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_parameter_once_and_begin_at_blocks() {
        let lengths = [0, 1, 100, BLOCK, BLOCK + 1, 2 * BLOCK, 7 * BLOCK + 5, 100 * BLOCK - 1];
        for ranks in 1..=9 {
            let map = ShardMap::new(lengths, ranks);
            for (parameter, &length) in lengths.iter().enumerate() {
                let mut end = 0;
                for piece in map.pieces(parameter) {
                    assert_eq!(piece.start, end, "{parameter} over {ranks}");
                    assert!(piece.start.is_multiple_of(BLOCK) || piece.start == length);
                    end = piece.end;
                }
                assert_eq!(end, length, "{parameter} over {ranks}");
            }
        }
    }

    #[test]
    fn ranks_own_the_same_number_of_blocks_but_one() {
        let map = ShardMap::new([10 * BLOCK, 11 * BLOCK], 4);
        for parameter in 0..2 {
            let sizes: Vec<usize> = map.pieces(parameter).map(|piece| piece.len()).collect();
            assert!(sizes.iter().all(|size| (2 * BLOCK..=3 * BLOCK).contains(size)), "{sizes:?}");
        }
    }

    #[test]
    fn small_parameters_rotate_over_the_ranks() {
        let map = ShardMap::new([100; 8], 4);
        let owner = |parameter| map.pieces(parameter).position(|piece| !piece.is_empty()).unwrap();
        let owners: Vec<usize> = (0..8).map(owner).collect();
        assert_eq!(owners, [3, 2, 1, 0, 3, 2, 1, 0]);
    }
}
