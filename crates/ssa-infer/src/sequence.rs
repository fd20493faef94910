//! What an engine knows of a sequence.

use crate::FilledBy;

/// The tokens of a sequence and what filled its cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequence {
    tokens: Vec<u32>,
    /// The end of each run of tokens whose keys and values were computed alike, and how.
    fills: Vec<(usize, FilledBy)>,
}

impl Sequence {
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The first attention other than `filled_by` that filled a part of the cache.
    pub(crate) fn filled_otherwise(&self, filled_by: FilledBy) -> Option<FilledBy> {
        self.fills.iter().map(|&(_, fill)| fill).find(|&fill| fill != filled_by)
    }

    pub(crate) fn extend(&mut self, tokens: &[u32], filled_by: FilledBy) {
        self.tokens.extend_from_slice(tokens);
        match self.fills.last_mut() {
            Some((end, fill)) if *fill == filled_by => *end = self.tokens.len(),
            _ => self.fills.push((self.tokens.len(), filled_by)),
        }
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        let runs = self.fills.partition_point(|&(end, _)| end < len);
        self.fills.truncate(if len == 0 { 0 } else { runs + 1 });
        if let Some((end, _)) = self.fills.last_mut() {
            *end = len;
        }
    }
}
