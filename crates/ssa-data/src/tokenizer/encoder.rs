//! Encoding on one thread, with a memory of words.

use std::collections::HashMap;
use std::ops::Range;

use ahash::RandomState;

use super::pieces::Cuts;
use super::{HfTokenizer, Tokenizer};
use crate::{DataError, Result};

/// Pieces longer than this come again too rarely to be remembered.
const MAX_REMEMBERED_BYTES: usize = 32;
/// Pieces remembered at most, so that a thread's memory stays at a few tens of megabytes.
const MAX_REMEMBERED: usize = 1 << 18;

/// Encodes texts on one thread.
#[derive(Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    words: Words,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, words: Words::default() }
    }

    /// The tokenizer used.
    pub fn tokenizer(&self) -> &'a Tokenizer {
        self.tokenizer
    }

    /// Appends the ids of a text, without the id that ends a document.
    ///
    /// The result is the tokenizer's for the whole text, with one exception that keeps memory
    /// bounded: text without any place to cut is cut every megabyte.
    ///
    /// # Errors
    /// [`DataError::TextNotUtf8`] if the tokenizer is not `bytes` and the text is not UTF-8.
    pub fn append(&mut self, text: &[u8], ids: &mut Vec<u32>) -> Result<()> {
        match self.tokenizer {
            Tokenizer::Bytes => ids.extend(text.iter().map(|&byte| u32::from(byte))),
            Tokenizer::Hf(tokenizer) => {
                let text = str::from_utf8(text)
                    .map_err(|error| DataError::TextNotUtf8 { position: error.valid_up_to() })?;
                self.words.append(tokenizer, text, ids)?;
            }
        }
        Ok(())
    }
}

/// The ids of pieces met before.
#[derive(Debug)]
struct Words {
    /// Where the ids of a piece lie.
    known: HashMap<Box<str>, Range<u32>, RandomState>,
    ids: Vec<u32>,
}

impl Default for Words {
    fn default() -> Self {
        // Fixed seeds: the table is never exposed to the order of its keys, only its speed depends
        // on them.
        Self { known: HashMap::with_hasher(RandomState::with_seeds(1, 2, 3, 4)), ids: Vec::new() }
    }
}

impl Words {
    fn append(&mut self, tokenizer: &HfTokenizer, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let cuts = tokenizer.cuts();
        let mut rest = text;
        if let Cuts::Marks(marks) = cuts
            && marks.start_differs()
        {
            // What it has for tokens here is of no use elsewhere.
            let (first, after) = rest.split_at(marks.piece(rest));
            tokenizer.append(first, ids)?;
            rest = after;
        }
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts.piece(rest));
            if let Some(known) = self.known.get(piece) {
                ids.extend_from_slice(&self.ids[known.start as usize..known.end as usize]);
            } else {
                let start = ids.len();
                tokenizer.append(cuts.inner(piece), ids)?;
                self.remember(piece, &ids[start..]);
            }
            rest = after;
        }
        Ok(())
    }

    fn remember(&mut self, piece: &str, ids: &[u32]) {
        if piece.len() > MAX_REMEMBERED_BYTES {
            return;
        }
        if self.known.len() == MAX_REMEMBERED {
            // Rare, and the frequent words are back at once.
            self.known.clear();
            self.ids.clear();
        }
        // At most 2^18 pieces of 32 bytes: far below 2^32 ids.
        let start = self.ids.len() as u32;
        self.ids.extend_from_slice(ids);
        self.known.insert(piece.into(), start..self.ids.len() as u32);
    }
}
