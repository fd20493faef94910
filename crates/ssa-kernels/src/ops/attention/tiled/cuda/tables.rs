//! How a call is cut into blocks of a GPU: lists made on the host once per batch, longest work
//! first.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use crate::cuda::{Buffer, Gpu};
use crate::ops::attention::tiled::Visibility;
use crate::{Documents, Result, Sequences};

/// Rows of a piece of a key tile's list of rows: not less than this,
const SHORTEST_PIECE: usize = 1024;
/// and chosen to give about this many pieces: several for every multiprocessor of any card,
/// so that the last ones end together, and few enough that partial sums cost little. It depends on
/// no card, so neither do results.
const PIECES: usize = 512;

/// A document as tables see it.
#[derive(Clone, Copy)]
struct Document {
    start: usize,
    tokens: usize,
    first_key: usize,
    keys: usize,
}

fn documents(documents: &Documents, visibility: Visibility) -> impl Iterator<Item = Document> {
    let mut first_key = 0;
    documents.ranges().map(move |range| {
        let keys = visibility.keys(range.len());
        let document = Document { start: range.start, tokens: range.len(), first_key, keys };
        first_key += keys;
        document
    })
}

/// Number of entries of four integers.
pub(crate) fn entries(table: &Buffer<i32>) -> usize {
    table.len() / 4
}

/// `(token, end, first key, first row)` of every tile of packed rows: the number in the call that
/// position 0 of its sequence has, or would have; the position after the last query; and rows are
/// counted from position 0. For packed documents, that is their first token and their tokens.
pub(crate) fn row_tiles(
    gpu: &Gpu,
    sequences: &Sequences,
    visibility: Visibility,
    group: usize,
    tile_rows: usize,
) -> Result<Arc<Buffer<i32>>> {
    sequences.tables().get(gpu, RowTiles { visibility, group, tile_rows }, || {
        let (mut tiles, mut first_key) = (Vec::new(), 0);
        let parts = sequences.ranges().zip(sequences.first_positions()).zip(sequences.key_lens());
        for ((range, &first), &tokens) in parts {
            let end = first + range.len();
            for row in (first * group..end * group).step_by(tile_rows) {
                let last = ((end * group).min(row + tile_rows) - 1) / group;
                let keys = visibility.seen(last).end - visibility.seen(row / group).start;
                let token = range.start as i32 - first as i32;
                tiles.push((keys, [token, end as i32, first_key, row as i32]));
            }
            first_key += visibility.keys(tokens) as i32;
        }
        tiles.sort_by_key(|&(keys, _)| Reverse(keys));
        tiles.into_iter().flat_map(|(_, entry)| entry).collect()
    })
}

/// Key of the tiles of packed rows.
#[derive(PartialEq)]
struct RowTiles {
    visibility: Visibility,
    group: usize,
    tile_rows: usize,
}

/// The tiles of keys, and the rows that see them in pieces.
pub(super) struct KeyTiles<'a> {
    pub(super) documents: &'a Documents,
    pub(super) visibility: Visibility,
    pub(super) group: usize,
    pub(super) kv_heads: usize,
    pub(super) tile_keys: usize,
}

impl KeyTiles<'_> {
    /// Two entries a piece: `(first token, tokens, first key, first key of the tile)` and `(first
    /// row, end of the rows, slot of the partial sum or -1, keys)`.
    ///
    /// Rows are cut at multiples of one length in every document, and pieces of that length come in
    /// the order of rows: blocks that run at the same time read the same rows.
    pub(super) fn pieces(&self, gpu: &Gpu) -> Result<Arc<Buffer<i32>>> {
        self.documents.tables().get(gpu, KeyPieces(self.key()), || {
            let length = self.piece_length();
            let (mut pieces, mut slot) = (Vec::new(), 0);
            for (document, key, rows) in self.tiles() {
                let cuts = cuts(&rows, length);
                for piece in &cuts {
                    let order = (Reverse(piece.len()), document.start, piece.start / length);
                    let is_whole = cuts.len() == 1;
                    let tile = [document.start, document.tokens, document.first_key, key];
                    let slot_or_none = if is_whole { -1 } else { slot };
                    pieces.push((order, tile, piece.clone(), slot_or_none, document.keys));
                    slot += i32::from(!is_whole);
                }
            }
            pieces.sort_by_key(|piece| piece.0);
            let entry = |(_, tile, rows, slot, keys): (_, [usize; 4], Range<usize>, i32, usize)| {
                let [a, b, c, d] = tile.map(|value| value as i32);
                [a, b, c, d, rows.start as i32, rows.end as i32, slot, keys as i32]
            };
            pieces.into_iter().flat_map(entry).collect()
        })
    }

    /// `(first key over the batch, keys, first slot, slots)` of every tile whose rows are cut.
    pub(super) fn sums(&self, gpu: &Gpu) -> Result<Arc<Buffer<i32>>> {
        self.documents.tables().get(gpu, KeySums(self.key()), || {
            let length = self.piece_length();
            let (mut sums, mut slot) = (Vec::new(), 0);
            for (document, key, rows) in self.tiles() {
                let count = cuts(&rows, length).len();
                if count > 1 {
                    let keys = self.tile_keys.min(document.keys - key);
                    sums.extend(
                        [document.first_key + key, keys, slot, count].map(|value| value as i32),
                    );
                    slot += count;
                }
            }
            sums
        })
    }

    /// Number of partial sums.
    pub(super) fn slots(&self) -> usize {
        let length = self.piece_length();
        self.tiles().map(|(_, _, rows)| cuts(&rows, length).len()).filter(|&count| count > 1).sum()
    }

    /// What the tables depend on in addition to the documents.
    fn key(&self) -> KeyTilesKey {
        let &Self { visibility, group, kv_heads, tile_keys, .. } = self;
        KeyTilesKey { visibility, group, kv_heads, tile_keys }
    }

    fn piece_length(&self) -> usize {
        let rows: usize = self.tiles().map(|(_, _, rows)| rows.len()).sum();
        (rows * self.kv_heads).div_ceil(PIECES).next_multiple_of(256).max(SHORTEST_PIECE)
    }

    /// Every tile: its document, its first key and the packed rows that see any of its keys.
    fn tiles(&self) -> impl Iterator<Item = (Document, usize, Range<usize>)> {
        documents(self.documents, self.visibility).flat_map(move |document| {
            (0..document.keys).step_by(self.tile_keys).map(move |key| {
                let last = document.keys.min(key + self.tile_keys) - 1;
                let positions = self.visibility.seen_by(key, last, document.tokens);
                (document, key, positions.start * self.group..positions.end * self.group)
            })
        })
    }
}

#[derive(PartialEq)]
struct KeyTilesKey {
    visibility: Visibility,
    group: usize,
    kv_heads: usize,
    tile_keys: usize,
}

/// Key of [`KeyTiles::pieces`].
#[derive(PartialEq)]
struct KeyPieces(KeyTilesKey);

/// Key of [`KeyTiles::sums`].
#[derive(PartialEq)]
struct KeySums(KeyTilesKey);

/// The pieces of a list of rows; one without rows is one piece, whose sum is zero.
fn cuts(rows: &Range<usize>, length: usize) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    let mut start = rows.start;
    while cuts.is_empty() || start < rows.end {
        let end = rows.end.min((start / length + 1) * length);
        cuts.push(start..end);
        start = end;
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_partition_the_rows() {
        for (rows, expected) in [
            (5..5, vec![(5, 5)]),
            (0..4, vec![(0, 4)]),
            (3..9, vec![(3, 4), (4, 8), (8, 9)]),
            (4..12, vec![(4, 8), (8, 12)]),
        ] {
            let pieces: Vec<_> =
                cuts(&rows, 4).into_iter().map(|piece| (piece.start, piece.end)).collect();
            assert_eq!(pieces, expected);
        }
    }

    /// Every pair of a row and a key that it sees is in the rows of the key's tile.
    #[test]
    fn rows_of_a_tile_see_it() {
        let documents = Documents::from_cu_seqlens(vec![0, 1, 38, 140]).unwrap();
        for visibility in [
            Visibility::Tokens { window_size: usize::MAX },
            Visibility::Tokens { window_size: 7 },
            Visibility::Blocks { block_size: 4 },
        ] {
            let tiles = KeyTiles {
                documents: &documents,
                visibility,
                group: 3,
                kv_heads: 1,
                tile_keys: 16,
            };
            for (document, key, rows) in tiles.tiles() {
                for position in 0..document.tokens {
                    let seen = visibility.seen(position);
                    let meets = seen.start < document.keys.min(key + 16) && seen.end > key;
                    let inside =
                        rows.contains(&(3 * position)) && rows.contains(&(3 * position + 2));
                    assert_eq!(meets, inside, "{visibility:?} key {key} position {position}");
                }
            }
        }
    }
}
