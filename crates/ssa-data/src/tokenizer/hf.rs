//! A `tokenizer.json`, through the `tokenizers` crate.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Message;
use super::chat::{self, ChatTemplate};
use super::pieces::Cuts;
use crate::shard::hexadecimal;
use crate::{DataError, Result};

/// The tokenizer itself.
pub(crate) const TOKENIZER_JSON: &str = "tokenizer.json";
/// Its special tokens and chat template.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// A chat template in a file of its own, as newer tokenizers have it.
pub(crate) const CHAT_TEMPLATE: &str = "chat_template.jinja";

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
        let definition: Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| damaged(error.to_string()))?;
        // A file saved after use can ask to cut or pad every text, which would lose or invent tokens.
        inner.with_truncation(None).map_err(|error| damaged(error.to_string()))?;
        inner.with_padding(None);

        let config = read_config(&path)?;
        let named = |token: &str| inner.token_to_id(token).map(|id| (id, token.to_owned()));
        let (eos, eos_name) = match eos_token
            .map(str::to_owned)
            .or_else(|| special_token(&config, "eos_token"))
        {
            Some(token) => named(&token).ok_or_else(|| DataError::NoEosToken {
                path: path.clone(),
                cause: format!("the vocabulary has no token `{token}` to end documents"),
            })?,
            None => EOS_NAMES.iter().find_map(|token| named(token)).ok_or_else(|| DataError::NoEosToken {
                path: path.clone(),
                cause: format!("no {TOKENIZER_CONFIG} beside it says which token ends a document"),
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
            sha256: hexadecimal(&Sha256::digest(&bytes)),
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

/// `tokenizer_config.json` beside a tokenizer; null if there is none.
fn read_config(tokenizer: &Path) -> Result<Value> {
    let path = tokenizer.with_file_name(TOKENIZER_CONFIG);
    let Some(bytes) = read_if_there(&path)? else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| DataError::DamagedTokenizer { path, cause: error.to_string() })
}

/// A special token, which is written as a string or as an object with its properties.
fn special_token(config: &Value, key: &str) -> Option<String> {
    let token = config.get(key)?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// The source of the chat template: a file of its own or an entry of the configuration, which is a string
/// or a list of named templates of which one is the default.
fn read_template(tokenizer: &Path, config: &Value) -> Result<Option<String>> {
    let path = tokenizer.with_file_name(CHAT_TEMPLATE);
    if let Some(bytes) = read_if_there(&path)? {
        return String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| DataError::ChatTemplate { path, cause: "it is not UTF-8".to_owned() });
    }
    let template = match &config["chat_template"] {
        Value::Array(templates) => templates
            .iter()
            .find(|template| template["name"] == "default")
            .map_or(&Value::Null, |template| &template["template"]),
        template => template,
    };
    Ok(template.as_str().map(str::to_owned))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataError::Unreadable { path: path.to_owned(), source }),
    }
}
