//! Which cached keys a query attends to.

use super::page_indices::PageIndices;

/// The cached keys that a query attends to.
#[derive(Clone, Copy, Debug)]
pub enum CachedKeys<'a> {
    /// All tokens up to its own.
    All,
    /// The last tokens up to its own; at least 1.
    Last(usize),
    /// The tokens of the selected pages, up to its own.
    Pages(&'a PageIndices),
    /// The means of the pages that are complete at its token.
    Means,
}
