//! Rows as lists of documents.

/// A document from a token on: up to its end, or to the end of the row if that comes first. Every
/// packing cuts documents in this way only, so that no length need be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) document: u32,
    pub(super) offset: u32,
}

/// The pieces of every row: 8 bytes each, and 4 for every row.
#[derive(Debug, Default)]
pub(super) struct RowIndex {
    pieces: Vec<Piece>,
    /// The end of every row in `pieces`.
    ends: Vec<u32>,
}

impl RowIndex {
    pub(super) fn with_capacity(pieces: usize, rows: usize) -> Self {
        Self { pieces: Vec::with_capacity(pieces), ends: Vec::with_capacity(rows) }
    }

    /// Appends a piece to the row that is being made.
    pub(super) fn push(&mut self, document: u32, offset: usize) {
        // Offsets are below the length of a document, which is below 2^32.
        self.pieces.push(Piece { document, offset: offset as u32 });
    }

    /// Ends the row that is being made.
    pub(super) fn end_row(&mut self) {
        self.ends.push(self.pieces.len() as u32);
    }

    /// Removes the last row.
    pub(super) fn pop(&mut self) {
        self.ends.pop();
        self.pieces.truncate(self.ends.last().map_or(0, |&end| end as usize));
    }

    pub(super) fn rows(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn row(&self, row: usize) -> &[Piece] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.pieces[start..self.ends[row] as usize]
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.pieces) + size_of_val(&*self.ends)
    }
}
