//! Tokens grouped by id.

use crate::Result;
use crate::host_memory::zeros;

/// The tokens of every id, ascending, one id after the other.
pub(super) struct TokensById {
    /// All tokens.
    pub(super) tokens: Vec<u32>,
    /// The end of each id's tokens in the list.
    ends: Vec<usize>,
}

impl TokensById {
    /// A counting sort.
    ///
    /// # Errors
    /// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
    pub(super) fn new(ids: &[u32], vocab: usize) -> Result<Self> {
        // After counting, `ends[id]` is the begin of the tokens of `id`; placing them moves it to
        // their end.
        let mut ends = zeros::<usize>(vocab + 1)?;
        for &id in ids {
            ends[id as usize + 1] += 1;
        }
        for id in 0..vocab {
            ends[id + 1] += ends[id];
        }
        let mut tokens = zeros(ids.len())?;
        for (token, &id) in ids.iter().enumerate() {
            tokens[ends[id as usize]] = token as u32;
            ends[id as usize] += 1;
        }
        Ok(Self { tokens, ends })
    }

    /// The positions of an id's tokens in the list.
    pub(super) fn range(&self, id: usize) -> std::ops::Range<usize> {
        let begin = if id == 0 { 0 } else { self.ends[id - 1] };
        begin..self.ends[id]
    }
}
