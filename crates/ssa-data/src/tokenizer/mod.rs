//! From text to token ids, and back.

mod bytes;
mod chat;
mod encoder;
mod files;
mod hf;
mod marks;
mod pieces;
mod train;

use std::path::Path;

pub use bytes::ByteTokenizer;
pub use chat::Message;
pub use encoder::Encoder;
pub(crate) use files::{CHAT_TEMPLATE, TOKENIZER_CONFIG, TOKENIZER_JSON};
pub use hf::HfTokenizer;
pub use train::{TrainTokenizerOptions, train_tokenizer};

use crate::{DataError, Result};

/// The name that stands for [`ByteTokenizer`] where a path to a tokenizer is expected.
pub const BYTES: &str = "bytes";

/// Any tokenizer.
#[derive(Debug)]
pub enum Tokenizer {
    /// One token per byte.
    Bytes,
    /// A `tokenizer.json`.
    Hf(Box<HfTokenizer>),
}

impl Tokenizer {
    /// The tokenizer of this name: `bytes`, a `tokenizer.json`, or a directory that holds one.
    ///
    /// `eos_token` names the token that ends every document; without it, `tokenizer_config.json`
    /// beside the tokenizer does, or one of the names that published tokenizers use. Tokens that
    /// this file declares in `added_tokens_decoder` and the tokenizer lacks are added.
    ///
    /// # Errors
    /// [`DataError::Missing`] or [`DataError::Unreadable`] if a file is,
    /// [`DataError::DamagedTokenizer`] if it is no tokenizer, [`DataError::NoEosToken`] if nothing
    /// says which token ends a document.
    pub fn load(path: &Path, eos_token: Option<&str>) -> Result<Self> {
        if path == Path::new(BYTES) {
            return match eos_token {
                None => Ok(Self::Bytes),
                Some(token) => {
                    Err(DataError::setting("eos_token", "nothing for the tokenizer `bytes`", token))
                }
            };
        }
        HfTokenizer::load(path, eos_token).map(|tokenizer| Self::Hf(Box::new(tokenizer)))
    }

    /// Number of ids: every id is below.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Bytes => ByteTokenizer::VOCAB_SIZE,
            Self::Hf(tokenizer) => tokenizer.vocab_size(),
        }
    }

    /// The id that ends every document.
    pub fn eos(&self) -> u32 {
        match self {
            Self::Bytes => ByteTokenizer::EOS,
            Self::Hf(tokenizer) => tokenizer.eos(),
        }
    }

    /// The name of that id; none for bytes, where it has none.
    pub fn eos_token(&self) -> Option<String> {
        match self {
            Self::Bytes => None,
            Self::Hf(tokenizer) => tokenizer.eos_token(),
        }
    }

    /// SHA-256 of `tokenizer.json`; none for bytes, which has no file.
    pub fn sha256(&self) -> Option<&str> {
        match self {
            Self::Bytes => None,
            Self::Hf(tokenizer) => Some(tokenizer.sha256()),
        }
    }

    /// An encoder for one thread. Each keeps a cache of its own, so that threads never wait for
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

    /// The text of the ids, special tokens spelt out. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`DataError::UnknownToken`] for an id that is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab_size()) {
            return Err(DataError::UnknownToken { id, vocab_size: self.vocab_size() });
        }
        match self {
            Self::Bytes => Ok(String::from_utf8_lossy(&ByteTokenizer.decode(ids)?).into_owned()),
            Self::Hf(tokenizer) => tokenizer.decode(ids),
        }
    }

    /// A conversation as one text: by the tokenizer's chat template if it has one, else as
    /// paragraphs `role: content`.
    ///
    /// # Errors
    /// [`DataError::ChatTemplate`] if the template refuses the conversation.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        match self {
            Self::Hf(tokenizer) => tokenizer.render(messages),
            Self::Bytes => Ok(chat::paragraphs(messages)),
        }
    }
}

#[cfg(test)]
mod tests;
