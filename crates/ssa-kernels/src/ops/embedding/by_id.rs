//! Tokens grouped by id.

/// The tokens of every id, ascending, one id after the other.
pub(super) struct TokensById {
    /// All tokens.
    pub(super) tokens: Vec<u32>,
    /// Where the tokens of each id end.
    ends: Vec<usize>,
}

impl TokensById {
    /// A counting sort.
    pub(super) fn new(ids: &[u32], vocab: usize) -> Self {
        // After counting, `ends[id]` is where the tokens of `id` begin; placing them moves it to
        // where they end.
        let mut ends = vec![0; vocab + 1];
        for &id in ids {
            ends[id as usize + 1] += 1;
        }
        for id in 0..vocab {
            ends[id + 1] += ends[id];
        }
        let mut tokens = vec![0; ids.len()];
        for (token, &id) in ids.iter().enumerate() {
            tokens[ends[id as usize]] = token as u32;
            ends[id as usize] += 1;
        }
        Self { tokens, ends }
    }

    /// Where the tokens of an id lie.
    pub(super) fn range(&self, id: usize) -> std::ops::Range<usize> {
        let begin = if id == 0 { 0 } else { self.ends[id - 1] };
        begin..self.ends[id]
    }
}
