//! Encoding on one thread, with a cache of words.

use std::collections::HashMap;
use std::ops::Range;

use ahash::RandomState;

use crate::bytes::ByteTokenizer;
use crate::cuts::MAX_PIECE_BYTES;
use crate::document::Document;
use crate::tokenizer::{HfTokenizer, Tokenizer};
use crate::{Result, TextError};

/// Longer pieces repeat too rarely to be cached.
const MAX_REMEMBERED_BYTES: usize = 32;
/// Maximum number of cached pieces, for a few tens of megabytes per thread.
const MAX_REMEMBERED: usize = 1 << 18;
/// Bytes of text per call of `take` for the tokenizer `bytes`.
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

    /// Appends the ids of a text, without the end-of-document id. They equal those of the whole
    /// text.
    ///
    /// # Errors
    /// [`TextError::NotUtf8`] if the tokenizer is not `bytes` and the text is not UTF-8;
    /// [`TextError::TooLong`] for 16 MiB of text without a known cut.
    pub fn append(&mut self, text: &[u8], ids: &mut Vec<u32>) -> Result<()> {
        self.encode(text, |piece| {
            ids.extend_from_slice(piece);
            Ok(())
        })
    }

    /// Passes the ids of a text to `take` in chunks: like [`append`](Self::append), but in bounded
    /// memory.
    ///
    /// # Errors
    /// Same as [`append`](Self::append), and any error of `take`.
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
    /// Creates an encoder for one thread. Each has its own cache, so threads never wait for each
    /// other.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder::new(self)
    }

    /// Encodes a text, without the end-of-document id.
    ///
    /// # Errors
    /// Same as [`Encoder::append`].
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.encoder().append(text, &mut ids)?;
        Ok(ids)
    }

    /// Encodes a text for a model to continue: the tokens that the tokenizer puts before every
    /// text, such as `<|begin_of_text|>`, then those of [`encode`](Self::encode).
    ///
    /// # Errors
    /// Same as [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &[u8]) -> Result<Vec<u32>> {
        let mut ids = match self {
            Self::Bytes => Vec::new(),
            Self::Hf(tokenizer) => tokenizer.prefix()?,
        };
        self.encoder().append(text, &mut ids)?;
        Ok(ids)
    }

    /// Encodes each document, in order, without the end-of-document id, even if the text itself
    /// ends with that token.
    ///
    /// # Errors
    /// Same as [`Encoder::append`]; the message names the document.
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

/// A cache of the ids of pieces.
#[derive(Debug)]
struct Words {
    /// The position of the ids of a piece.
    known: HashMap<Box<str>, Range<u32>, RandomState>,
    ids: Vec<u32>,
}

impl Default for Words {
    fn default() -> Self {
        // Fixed seeds: the iteration order is never used, so only the speed depends on them.
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
            // Its tokens at the start of a text cannot be reused inside.
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
            // This is rare, and the frequent words are soon cached again.
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
