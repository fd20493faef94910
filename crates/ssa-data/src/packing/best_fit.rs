//! Best-fit packing: documents stay whole, each in the row with the least remaining room.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::index::{Piece, RowIndex};

/// Packs documents given as (number, tokens), with at least one token each.
///
/// Best-fit decreasing: pieces in descending order of length, equal ones in the given order. Each
/// goes to the row with the least sufficient room (among equals, the one opened last), or opens a
/// new row. Uses at most about 11/9 of the optimal number of rows, in O(n log n) time.
pub(super) fn rows(
    documents: impl Iterator<Item = (u32, usize)>,
    sequence_length: usize,
) -> RowIndex {
    let mut whole_rows = Vec::new();
    let mut pieces = Vec::new();
    for (document, length) in documents {
        let rest = length % sequence_length;
        let cuts = (0..length - rest).step_by(sequence_length);
        whole_rows.extend(cuts.map(|offset| Piece { document, offset: offset as u32 }));
        if rest > 0 {
            pieces.push((rest as u32, Piece { document, offset: (length - rest) as u32 }));
        }
    }
    pieces.sort_by_key(|&(length, _)| Reverse(length));
    let (places, rows) = places(pieces.iter().map(|&(length, _)| length), sequence_length as u32);

    // Pieces sorted by row, then by placement order.
    let mut placed: Vec<(u32, Piece)> =
        places.into_iter().zip(pieces).map(|(row, (_, piece))| (row, piece)).collect();
    placed.sort_by_key(|&(row, _)| row);
    let mut index =
        RowIndex::with_capacity(placed.len() + whole_rows.len(), rows + whole_rows.len());
    for piece in whole_rows {
        index.push(piece.document, piece.offset as usize);
        index.end_row();
    }
    for row in placed.chunk_by(|(a, _), (b, _)| a == b) {
        row.iter().for_each(|(_, piece)| index.push(piece.document, piece.offset as usize));
        index.end_row();
    }
    index
}

/// Returns the row of each piece, and the number of rows. No piece is longer than a row.
fn places(lengths: impl Iterator<Item = u32>, sequence_length: u32) -> (Vec<u32>, usize) {
    let mut open: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut rows = 0;
    let mut place = |length: u32| {
        let found = open
            .range_mut(length..)
            .next()
            .map(|(&room, rows)| (room, rows.pop(), rows.is_empty()));
        let (room, row) = match found {
            Some((room, Some(row), emptied)) => {
                if emptied {
                    open.remove(&room);
                }
                (room, row)
            }
            _ => {
                rows += 1;
                (sequence_length, rows - 1)
            }
        };
        if room > length {
            open.entry(room - length).or_default().push(row);
        }
        row
    };
    let places = lengths.map(&mut place).collect();
    (places, rows as usize)
}
