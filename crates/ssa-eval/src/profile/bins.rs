//! Bins that double in size.

/// Positions of the first bin.
const FIRST: usize = 64;
/// Number of bins of positions: up to 2^31 tokens, the longest document.
pub(super) const POSITIONS: usize = 27;
/// Number of bins of distances: up to 2^31 blocks.
pub(super) const DISTANCES: usize = 32;

/// The bin of a position in a document: 0 to 63, 64 to 127, 128 to 255, ...
pub(super) fn position_bin(position: usize) -> usize {
    distance_bin(position / FIRST).min(POSITIONS - 1)
}

/// The first and last position of a bin.
pub(super) fn positions_of(bin: usize) -> (usize, usize) {
    let (from, to) = distances_of(bin);
    (FIRST * from, FIRST * to + FIRST - 1)
}

/// The bin of a distance in blocks: 0, 1, 2 to 3, 4 to 7, ...
pub(super) fn distance_bin(distance: usize) -> usize {
    distance.checked_ilog2().map_or(0, |power| power as usize + 1)
}

/// The first and last distance of a bin.
pub(super) fn distances_of(bin: usize) -> (usize, usize) {
    match bin {
        0 => (0, 0),
        bin => (1 << (bin - 1), (1 << bin) - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_cover_everything_once() {
        for (bin, range) in [(0, (0, 0)), (1, (1, 1)), (2, (2, 3)), (3, (4, 7))] {
            assert_eq!(distances_of(bin), range);
        }
        for (bin, range) in [(0, (0, 63)), (1, (64, 127)), (2, (128, 255)), (3, (256, 511))] {
            assert_eq!(positions_of(bin), range);
        }
        for number in 0..5000 {
            let (from, to) = distances_of(distance_bin(number));
            assert!((from..=to).contains(&number), "{number}");
            let (from, to) = positions_of(position_bin(number));
            assert!((from..=to).contains(&number), "{number}");
        }
        let longest = (1 << 31) - 1;
        assert!(distance_bin(longest) < DISTANCES && position_bin(longest) < POSITIONS);
    }
}
