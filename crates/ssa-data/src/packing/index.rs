//! Rows as lists of documents.

/// A piece of a document: from a token up to the end of the document or of the row, whichever comes
/// first. Every packing cuts documents this way, so no length is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) document: u32,
    pub(super) offset: u32,
}

/// The pieces of every row: 8 bytes per piece and 4 per row.
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

    /// Appends a piece to the current row.
    pub(super) fn push(&mut self, document: u32, offset: usize) {
        // Offsets are smaller than the document length, which is below 2^32.
        self.pieces.push(Piece { document, offset: offset as u32 });
    }

    /// Ends the current row.
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
