//! Pages of one layer and key/value head as the matrices of a product.

use std::ops::Range;

use crate::cpu::register_tile::{Matrices, padded};
use crate::kv_cache::MatrixPages;

/// A page of keys and its number within the sequence.
#[derive(Clone, Copy)]
pub(super) struct KeyPage {
    pub(super) page: u32,
    pub(super) number: usize,
}

/// Pages that a tile of queries attends to, in order.
#[derive(Clone, Copy)]
pub(super) struct HeadPages<'a> {
    pub(super) storage: &'a MatrixPages,
    pub(super) layer: usize,
    pub(super) kv_head: usize,
    pub(super) head_dim: usize,
    pub(super) pages: &'a [KeyPage],
    /// One more than the last key that a query of the tile sees.
    pub(super) end: usize,
}

/// Keys that all rows of a tile use before the next ones: with the rows they stay in the L1 cache.
const PASS_KEYS: usize = 64;

impl HeadPages<'_> {
    /// These pages in parts of a pass each, and the number of pages before each part.
    pub(super) fn passes(self) -> impl Iterator<Item = (usize, Self)> {
        let len = (PASS_KEYS / self.storage.page_rows()).max(1);
        let parts = self.pages.chunks(len).enumerate();
        parts.map(move |(index, pages)| (index * len, Self { pages, ..self }))
    }

    /// The keys of a page, counted over the sequence.
    pub(super) fn keys(&self, index: usize) -> Range<usize> {
        let rows = self.storage.page_rows();
        let first = self.pages[index].number * rows;
        first..first + rows
    }
}

/// The keys `[D, padded rows]` of pages.
pub(super) struct Keys<'a>(pub(super) HeadPages<'a>);

impl Matrices for Keys<'_> {
    fn len(&self) -> usize {
        self.0.pages.len()
    }

    #[inline]
    fn matrix(&self, index: usize) -> &[f32] {
        let Self(HeadPages { storage, layer, kv_head, pages, .. }) = *self;
        storage.keys(pages[index].page, layer, kv_head)
    }

    fn rows(&self, _: usize) -> usize {
        self.0.head_dim
    }

    fn width(&self) -> usize {
        padded(self.0.storage.page_rows())
    }
}

/// The values `[rows, padded D]` of pages, as far as a query of the tile sees them: later rows may
/// hold anything.
pub(super) struct Values<'a>(pub(super) HeadPages<'a>);

impl Matrices for Values<'_> {
    fn len(&self) -> usize {
        self.0.pages.len()
    }

    #[inline]
    fn matrix(&self, index: usize) -> &[f32] {
        let Self(HeadPages { storage, layer, kv_head, pages, .. }) = *self;
        storage.values(pages[index].page, layer, kv_head)
    }

    fn rows(&self, index: usize) -> usize {
        let keys = self.0.keys(index);
        self.0.end.min(keys.end) - keys.start
    }

    fn width(&self) -> usize {
        padded(self.0.head_dim)
    }
}
