//! Encoding on one thread, with a memory of words.

use std::collections::HashMap;
use std::ops::Range;

use ahash::RandomState;

use crate::bytes::ByteTokenizer;
use crate::cuts::MAX_PIECE_BYTES;
use crate::document::Document;
use crate::tokenizer::{HfTokenizer, Tokenizer};
use crate::{Result, TextError};

/// Pieces longer than this come again too rarely to be remembered.
const MAX_REMEMBERED_BYTES: usize = 32;
/// Pieces remembered at most, so that a thread's memory stays at a few tens of megabytes.
const MAX_REMEMBERED: usize = 1 << 18;
/// Bytes of a text encoded at once by the tokenizer `bytes`.
const BYTES_AT_ONCE: usize = 1 << 16;

/// Encodes texts on one thread.
#[derive(Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    words: Words,
}

impl<'a> Encoder<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, words: Words::default() }
    }

    /// The tokenizer used.
    pub fn tokenizer(&self) -> &'a Tokenizer {
        self.tokenizer
    }

    /// Appends the ids of a text, without the id that ends a document: those that the tokenizer
    /// gives for the whole text.
    ///
    /// # Errors
    /// [`TextError::NotUtf8`] if the tokenizer is not `bytes` and the text is not UTF-8;
    /// [`TextError::TooLong`] for 16 MiB of text in which the tokenizer is not known to allow any
    /// cut.
    pub fn append(&mut self, text: &[u8], ids: &mut Vec<u32>) -> Result<()> {
        self.encode(text, |piece| {
            ids.extend_from_slice(piece);
            Ok(())
        })
    }

    /// Gives the ids of a text to `take`, a few at a time: as [`append`](Self::append), in memory
    /// that does not grow with the text.
    ///
    /// # Errors
    /// As [`append`](Self::append), and where `take` has one.
    pub fn encode<E: From<TextError>>(
        &mut self,
        text: &[u8],
        mut take: impl FnMut(&[u32]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.tokenizer {
            Tokenizer::Bytes => text.chunks(BYTES_AT_ONCE).try_for_each(|chunk| {
                let ids: Vec<u32> = chunk.iter().map(|&byte| u32::from(byte)).collect();
                take(&ids)
            }),
            Tokenizer::Hf(tokenizer) => {
                let text = str::from_utf8(text).map_err(|error| TextError::NotUtf8 {
                    name: None,
                    position: error.valid_up_to(),
                })?;
                self.words.encode(tokenizer, text, &mut take)
            }
        }
    }
}

impl Tokenizer {
    /// An encoder for one thread. Each has its own cache, so that threads never wait for
    /// each other.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder::new(self)
    }

    /// The ids of a text, without the id that ends a document.
    ///
    /// # Errors
    /// As [`Encoder::append`].
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.encoder().append(text, &mut ids)?;
        Ok(ids)
    }

    /// The ids of each document, in order, without the id that ends it, even if the text itself
    /// ends with that token.
    ///
    /// # Errors
    /// As [`Encoder::append`]; the message names the document.
    pub fn encode_documents(&self, documents: &[Document]) -> Result<Vec<Vec<u32>>> {
        if matches!(self, Self::Bytes) {
            return Ok(ByteTokenizer.encode_documents(documents));
        }
        let mut encoder = self.encoder();
        let encode = |document: &Document| {
            let mut ids = Vec::new();
            encoder
                .append(&document.text, &mut ids)
                .map_err(|error| error.in_document(&document.name))?;
            ids.pop_if(|id| *id == self.eos());
            Ok(ids)
        };
        documents.iter().map(encode).collect()
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
    fn encode<E: From<TextError>>(
        &mut self,
        tokenizer: &HfTokenizer,
        text: &str,
        take: &mut impl FnMut(&[u32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let cuts = tokenizer.cuts();
        let mut ids = Vec::new();
        let mut rest = text;
        if cuts.start_differs() {
            // What it has for tokens here is of no use elsewhere.
            let (first, after) = rest.split_at(piece_length(tokenizer, rest)?);
            tokenizer.append(first, &mut ids)?;
            take(&ids)?;
            rest = after;
        }
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece_length(tokenizer, rest)?);
            if let Some(known) = self.known.get(piece) {
                take(&self.ids[known.start as usize..known.end as usize])?;
            } else {
                ids.clear();
                tokenizer.append(cuts.inner(piece), &mut ids)?;
                self.remember(piece, &ids);
                take(&ids)?;
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
            // Rare, and the frequent words are soon back.
            self.known.clear();
            self.ids.clear();
        }
        // At most 2^18 pieces of 32 bytes: far below 2^32 ids.
        let start = self.ids.len() as u32;
        self.ids.extend_from_slice(ids);
        self.known.insert(piece.into(), start..self.ids.len() as u32);
    }
}

/// The length of the first piece of a text.
fn piece_length(tokenizer: &HfTokenizer, text: &str) -> Result<usize> {
    let bytes = tokenizer.cuts().piece(text);
    if bytes > MAX_PIECE_BYTES {
        return Err(TextError::TooLong { name: None, bytes, limit: MAX_PIECE_BYTES });
    }
    Ok(bytes)
}
