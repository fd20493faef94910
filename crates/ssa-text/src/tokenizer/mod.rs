//! One type for all tokenizers.

mod files;
mod foreign;
mod hugging_face;
mod limits;

use std::path::Path;

pub(crate) use files::TOKENIZER_CONFIG;
pub use files::{TOKENIZER_FILES, TOKENIZER_JSON};
pub use hugging_face::HfTokenizer;

use crate::bytes::ByteTokenizer;
use crate::chat::{ChatTemplate, Conversation, GenerationPrompt};
use crate::{Result, TextError};

/// The name of [`ByteTokenizer`] in place of a tokenizer path.
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
    /// Loads a tokenizer: `bytes`, a `tokenizer.json`, or a directory with one.
    ///
    /// `eos_token` names the end-of-document token; the default comes from `tokenizer_config.json`
    /// next to the tokenizer, or is one of the names in published tokenizers. Tokens that this file
    /// declares in `added_tokens_decoder` but the tokenizer does not have are added.
    ///
    /// # Errors
    /// [`TextError::Missing`] or [`TextError::Read`] if a file is missing or unreadable,
    /// [`TextError::Tokenizer`] if it is not a `tokenizer.json`, is corrupt, or exceeds the limits
    /// for ids or expressions, [`TextError::NoEosToken`] if the end-of-document token is unknown.
    pub fn load(path: &Path, eos_token: Option<&str>) -> Result<Self> {
        if path == Path::new(BYTES) {
            return match eos_token {
                None => Ok(Self::Bytes),
                Some(token) => {
                    Err(TextError::setting("eos_token", "nothing for the tokenizer `bytes`", token))
                }
            };
        }
        HfTokenizer::load(path, eos_token).map(|tokenizer| Self::Hf(Box::new(tokenizer)))
    }

    /// Number of ids; every id is smaller.
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

    /// The id of `bos_token`, the token that begins a text; `None` if the tokenizer names none.
    pub fn bos(&self) -> Option<u32> {
        match self {
            Self::Bytes => None,
            Self::Hf(tokenizer) => tokenizer.bos(),
        }
    }

    /// The end-of-document token; `None` for bytes, which has no name for it.
    pub fn eos_token(&self) -> Option<String> {
        match self {
            Self::Bytes => None,
            Self::Hf(tokenizer) => tokenizer.eos_token(),
        }
    }

    /// SHA-256 of `tokenizer.json`; `None` for bytes, which has no file.
    pub fn sha256(&self) -> Option<&str> {
        match self {
            Self::Bytes => None,
            Self::Hf(tokenizer) => Some(tokenizer.sha256()),
        }
    }

    /// Decodes ids to text, including special tokens. Invalid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// [`TextError::UnknownToken`] for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.decode_bytes(ids)?).into_owned())
    }

    /// Decodes ids to text, without special tokens (`skip_special_tokens`). Invalid UTF-8 becomes
    /// U+FFFD.
    ///
    /// # Errors
    /// Same as [`decode`](Self::decode).
    pub fn decode_visible(&self, ids: &[u32]) -> Result<String> {
        match self {
            Self::Bytes => self.decode(ids),
            Self::Hf(tokenizer) => {
                self.check_ids(ids)?;
                tokenizer.decode_visible(ids)
            }
        }
    }

    /// Decodes ids to bytes; exact for the tokenizer `bytes`.
    ///
    /// # Errors
    /// Same as [`decode`](Self::decode).
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        self.check_ids(ids)?;
        match self {
            Self::Bytes => ByteTokenizer.decode(ids),
            Self::Hf(tokenizer) => tokenizer.decode(ids).map(String::into_bytes),
        }
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.vocab_size()) {
            None => Ok(()),
            Some(&id) => Err(TextError::UnknownToken { id, vocab_size: self.vocab_size() }),
        }
    }

    /// Renders a conversation as text: with the tokenizer's chat template, as in transformers, or
    /// without one as paragraphs `role: content`.
    ///
    /// # Errors
    /// [`TextError::ChatTemplate`] if the template is invalid, exceeds its limits or refuses the
    /// conversation, [`TextError::Conversation`] if there is no template and the messages need one.
    pub fn render(&self, conversation: &Conversation) -> Result<String> {
        match self {
            Self::Hf(tokenizer) => tokenizer.render(conversation),
            Self::Bytes => conversation.paragraphs(),
        }
    }

    /// Renders a conversation up to the start of the assistant's next message, with the chat
    /// template (`add_generation_prompt`).
    ///
    /// # Errors
    /// Same as [`require_chat_template`](Self::require_chat_template), and
    /// [`TextError::ChatTemplate`] as [`render`](Self::render).
    pub fn render_prompt(&self, conversation: &Conversation) -> Result<String> {
        self.chat_template()?.render(conversation, GenerationPrompt::With)
    }

    /// Fails for a tokenizer without a chat template.
    ///
    /// # Errors
    /// [`TextError::NoChatTemplate`].
    pub fn require_chat_template(&self) -> Result<()> {
        self.chat_template().map(drop)
    }

    fn chat_template(&self) -> Result<&ChatTemplate> {
        let (template, name) = match self {
            Self::Bytes => (None, BYTES.to_owned()),
            Self::Hf(tokenizer) => {
                (tokenizer.chat_template(), tokenizer.path().display().to_string())
            }
        };
        template.ok_or(TextError::NoChatTemplate { tokenizer: name })
    }

    /// Copies the files of the tokenizer into a directory for [`Tokenizer::load`], and returns
    /// their names. Each file is replaced atomically. The tokenizer `bytes` has no files.
    ///
    /// # Errors
    /// [`TextError::Read`] or [`TextError::File`] names the file.
    pub fn copy_to(&self, directory: &Path) -> Result<Vec<&'static str>> {
        match self {
            Self::Bytes => Ok(Vec::new()),
            Self::Hf(tokenizer) => tokenizer.copy_to(directory),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
