//! A `tokenizer.json`, through the `tokenizers` crate.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use ssa_files::Sha256;

use super::Message;
use super::chat::{self, ChatTemplate};
use super::files::{TOKENIZER_CONFIG, TOKENIZER_JSON};
use super::files::{add_declared_tokens, read_config, read_template, special_token};
use super::pieces::Cuts;
use crate::{DataError, Result};

/// What published tokenizers call the token that ends a document, for files that do not say.
const EOS_NAMES: [&str; 6] = [
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// A tokenizer of the Hugging Face format.
#[derive(Debug)]
pub struct HfTokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
    eos: u32,
    sha256: String,
    chat_template: Option<ChatTemplate>,
    cuts: Cuts,
}

impl HfTokenizer {
    pub(super) fn load(path: &Path, eos_token: Option<&str>) -> Result<Self> {
        let path = if path.is_dir() { path.join(TOKENIZER_JSON) } else { path.to_owned() };
        let bytes = fs::read(&path).map_err(|source| DataError::from_open(&path, source))?;
        let damaged = |cause: String| DataError::DamagedTokenizer { path: path.clone(), cause };
        let mut definition: Value =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|error| damaged(error.to_string()))?;
        // A file saved after use can ask to cut or pad every text, which would lose or invent
        // tokens.
        inner.with_truncation(None).map_err(|error| damaged(error.to_string()))?;
        inner.with_padding(None);

        let config = read_config(&path)?;
        if add_declared_tokens(&mut inner, &config).map_err(damaged)? {
            let changed = inner.to_string(false).map_err(|error| damaged(error.to_string()))?;
            definition =
                serde_json::from_str(&changed).map_err(|error| damaged(error.to_string()))?;
        }
        let named = |token: &str| inner.token_to_id(token).map(|id| (id, token.to_owned()));
        let (eos, eos_name) =
            match eos_token.map(str::to_owned).or_else(|| special_token(&config, "eos_token")) {
                Some(token) => named(&token).ok_or_else(|| DataError::NoEosToken {
                    path: path.clone(),
                    cause: format!("the vocabulary has no token `{token}` to end documents"),
                })?,
                None => EOS_NAMES.iter().find_map(|token| named(token)).ok_or_else(|| {
                    DataError::NoEosToken {
                        path: path.clone(),
                        cause: format!(
                            "no {TOKENIZER_CONFIG} beside it says which token ends a document"
                        ),
                    }
                })?,
            };
        let bos_name = special_token(&config, "bos_token").unwrap_or_default();
        let chat_template = read_template(&path, &config)?
            .map(|source| ChatTemplate::new(source, bos_name, eos_name))
            .transpose()
            .map_err(|cause| DataError::ChatTemplate { path: path.clone(), cause })?;
        // Ids need not be consecutive: a model needs one row more than the largest.
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        Ok(Self {
            cuts: Cuts::of(&definition),
            sha256: Sha256::of(&bytes).to_string(),
            path,
            inner,
            vocab_size,
            eos,
            chat_template,
        })
    }

    /// The `tokenizer.json`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(super) fn eos(&self) -> u32 {
        self.eos
    }

    pub(super) fn eos_token(&self) -> Option<String> {
        self.inner.id_to_token(self.eos)
    }

    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Where a text may be cut into pieces that are encoded on their own.
    pub(super) fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// Appends the ids of a text.
    pub(super) fn append(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let encoding = self.inner.encode_fast(text, false).map_err(|error| self.damaged(&error))?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(|error| self.damaged(&error))
    }

    pub(super) fn render(&self, messages: &[Message]) -> Result<String> {
        let Some(template) = &self.chat_template else {
            return Ok(chat::paragraphs(messages));
        };
        let failed = |cause| DataError::ChatTemplate { path: self.path.clone(), cause };
        template.render(messages).map_err(failed)
    }

    fn damaged(&self, error: &tokenizers::Error) -> DataError {
        DataError::DamagedTokenizer { path: self.path.clone(), cause: error.to_string() }
    }
}
