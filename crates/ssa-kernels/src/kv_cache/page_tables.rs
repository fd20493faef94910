//! Which pages each sequence has.

use std::collections::BTreeMap;
use std::fmt;

use super::MEANS_PER_PAGE;
use crate::{KernelError, Result};

/// A sequence of a cache. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sequence {}", self.0)
    }
}

/// The pages of one sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageTable {
    tokens: usize,
    pages: Vec<u32>,
    mean_pages: Vec<u32>,
}

impl PageTable {
    /// Number of tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// The pages of its tokens, in order; the last may be incomplete.
    pub(crate) fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// The pages of the means of its blocks, in order.
    pub(crate) fn mean_pages(&self) -> &[u32] {
        &self.mean_pages
    }
}

/// Pages of one kind: those in use were handed out, and some of them came back.
#[derive(Default)]
struct Pool {
    in_use: usize,
    /// Pages that came back. The next to be handed out is the last.
    free: Vec<u32>,
}

impl Pool {
    fn resize(&mut self, pages: &mut Vec<u32>, len: usize) {
        while pages.len() < len {
            let page = self.free.pop().unwrap_or_else(|| {
                self.in_use += 1;
                (self.in_use - 1) as u32
            });
            pages.push(page);
        }
        self.free.extend(pages.drain(len..).rev());
    }
}

/// The page tables of all sequences and the pages that none has.
pub(super) struct PageTables {
    page_size: usize,
    /// The largest number of pages.
    capacity: usize,
    pages: Pool,
    mean_pages: Pool,
    sequences: BTreeMap<SequenceId, PageTable>,
    next_id: u64,
}

impl PageTables {
    pub(super) fn new(page_size: usize, capacity: usize) -> Self {
        let (pages, mean_pages) = (Pool::default(), Pool::default());
        Self { page_size, capacity, pages, mean_pages, sequences: BTreeMap::new(), next_id: 0 }
    }

    /// The largest number of pages.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of pages that no sequence has.
    pub(super) fn free(&self) -> usize {
        self.capacity - self.pages.in_use + self.pages.free.len()
    }

    /// The number of pages, and of pages of means, that have ever been handed out: one more than
    /// the largest.
    pub(super) fn in_use(&self) -> (usize, usize) {
        (self.pages.in_use, self.mean_pages.in_use)
    }

    pub(super) fn add(&mut self) -> SequenceId {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.sequences.insert(id, PageTable::default());
        id
    }

    pub(super) fn get(&self, op: &'static str, id: SequenceId) -> Result<&PageTable> {
        self.sequences.get(&id).ok_or_else(|| unknown(op, id))
    }

    pub(super) fn remove(&mut self, id: SequenceId) -> Result<()> {
        self.truncate(id, 0)?;
        self.sequences.remove(&id);
        Ok(())
    }

    pub(super) fn truncate(&mut self, id: SequenceId, tokens: usize) -> Result<()> {
        const OP: &str = "KvCache::truncate";
        let len = self.get(OP, id)?.tokens;
        if tokens > len {
            let expected = format!("at most {len}, the tokens of {id}");
            return Err(KernelError::value(OP, "tokens", expected, tokens));
        }
        self.resize(id, tokens);
        Ok(())
    }

    /// Adds tokens to sequences that exist; a failed call changes nothing.
    pub(super) fn extend(&mut self, chunks: &[(SequenceId, usize)]) -> Result<()> {
        const OP: &str = "KvCache::extend";
        let mut needed = 0;
        for &(id, tokens) in chunks {
            let table = self.get(OP, id)?;
            needed += (table.tokens + tokens).div_ceil(self.page_size) - table.pages.len();
        }
        let free = self.free();
        if needed > free {
            return Err(KernelError::CacheFull {
                needed: needed * self.page_size,
                free: free * self.page_size,
                capacity: self.capacity * self.page_size,
            });
        }
        for &(id, tokens) in chunks {
            let tokens = self.get(OP, id)?.tokens + tokens;
            self.resize(id, tokens);
        }
        Ok(())
    }

    fn resize(&mut self, id: SequenceId, tokens: usize) {
        if let Some(table) = self.sequences.get_mut(&id) {
            let pages = tokens.div_ceil(self.page_size);
            self.pages.resize(&mut table.pages, pages);
            self.mean_pages.resize(&mut table.mean_pages, pages.div_ceil(MEANS_PER_PAGE));
            table.tokens = tokens;
        }
    }
}

fn unknown(op: &'static str, id: SequenceId) -> KernelError {
    KernelError::value(op, "sequence", "a sequence of this cache", format!("{id}, which it lacks"))
}
