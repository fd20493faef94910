//! A `tokenizer.json`, loaded with the `tokenizers` crate.

use std::path::{Path, PathBuf};

use serde_json::Value;
use ssa_files::Sha256;

use super::files::{self, Config, TOKENIZER_CONFIG, TOKENIZER_JSON};
use super::{foreign, limits};
use crate::chat::{ChatTemplate, GenerationPrompt};
use crate::cuts::Cuts;
use crate::panics::catch_panic;
use crate::{Conversation, Result, TextError};

/// Names of end-of-document tokens in published tokenizers, for files that do not define one.
const EOS_NAMES: [&str; 6] = [
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// A tokenizer in the Hugging Face format.
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

/// The content of the file.
struct Parsed {
    inner: tokenizers::Tokenizer,
    definition: Value,
    vocab_size: usize,
}

impl HfTokenizer {
    pub(super) fn load(path: &Path, eos_token: Option<&str>) -> Result<Self> {
        let file = if path.is_dir() { path.join(TOKENIZER_JSON) } else { path.to_owned() };
        if path.is_dir()
            && !file.exists()
            && let Some(error) = foreign::in_directory(path)
        {
            return Err(error);
        }
        let bytes = ssa_files::read(&file).map_err(|source| TextError::from_open(&file, source))?;
        if let Some(error) = foreign::in_file(&file, &bytes) {
            return Err(error);
        }
        let config = Config::read(&file)?;
        // The library panics on some corrupt files.
        let parsed = catch_panic(|| parse(&bytes, &config)).unwrap_or_else(Err);
        let Parsed { inner, definition, vocab_size } =
            parsed.map_err(|cause| TextError::damaged(&file, cause))?;
        Ok(Self {
            cuts: Cuts::of(&definition),
            eos: find_eos(&inner, &file, &config, eos_token)?,
            chat_template: config.chat_template(eos_token)?,
            sha256: Sha256::of(&bytes).to_string(),
            path: file,
            inner,
            vocab_size,
        })
    }

    /// The path of the `tokenizer.json`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn vocab_size(&self) -> usize {
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

    pub(super) fn copy_to(&self, directory: &Path) -> Result<Vec<&'static str>> {
        files::copy(&self.path, directory)
    }

    /// The cut rule: where a text may be split into separately encoded pieces.
    pub(crate) fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// Appends the ids of a text, encoded as a whole.
    pub(crate) fn append(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let encoding = self.call(|| self.inner.encode_fast(text, false))?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// The token of an id, if there is one.
    pub(crate) fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The ids that the tokenizer's post-processor puts before every text.
    pub(crate) fn prefix(&self) -> Result<Vec<u32>> {
        // Any text will do: what comes before its own ids.
        const TEXT: &str = "a";
        let plain = self.call(|| self.inner.encode_fast(TEXT, false))?;
        let processed = self.call(|| self.inner.encode_fast(TEXT, true))?;
        let (plain, processed) = (plain.get_ids(), processed.get_ids());
        let start = processed.windows(plain.len().max(1)).position(|ids| ids == plain);
        Ok(processed[..start.unwrap_or(0)].to_vec())
    }

    pub(crate) fn decode(&self, ids: &[u32]) -> Result<String> {
        self.call(|| self.inner.decode(ids, false))
    }

    pub(super) fn render(&self, conversation: &Conversation) -> Result<String> {
        match &self.chat_template {
            Some(template) => template.render(conversation, GenerationPrompt::Without),
            None => conversation.paragraphs(),
        }
    }

    pub(super) fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// Calls the library and converts panics to errors.
    fn call<T>(&self, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
        catch_panic(|| call().map_err(|error| error.to_string()))
            .unwrap_or_else(Err)
            .map_err(|cause| TextError::damaged(&self.path, cause))
    }
}

fn parse(bytes: &[u8], config: &Config) -> Result<Parsed, String> {
    let mut definition: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    limits::check(&definition)?;
    let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| error.to_string())?;
    // A file saved after use can request truncation or padding, which would lose or add tokens.
    inner.with_truncation(None).map_err(|error| error.to_string())?;
    inner.with_padding(None);
    let is_changed = config.add_declared_tokens(&mut inner)?;
    // Ids need not be consecutive: a model needs one row more than the largest id. The library
    // visits all ids below it to write the tokenizer.
    let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
    limits::check_size(vocab_size)?;
    if is_changed {
        let changed = inner.to_string(false).map_err(|error| error.to_string())?;
        definition = serde_json::from_str(&changed).map_err(|error| error.to_string())?;
    }
    Ok(Parsed { inner, definition, vocab_size })
}

fn find_eos(
    tokenizer: &tokenizers::Tokenizer,
    path: &Path,
    config: &Config,
    eos_token: Option<&str>,
) -> Result<u32> {
    let missing = |cause: String| TextError::NoEosToken { path: path.to_owned(), cause };
    match eos_token.map(str::to_owned).or_else(|| config.special_token("eos_token")) {
        Some(token) => tokenizer.token_to_id(&token).ok_or_else(|| {
            missing(format!("the vocabulary has no token `{token}` to end documents"))
        }),
        None => EOS_NAMES.iter().find_map(|token| tokenizer.token_to_id(token)).ok_or_else(|| {
            missing(format!("no {TOKENIZER_CONFIG} next to it defines the end-of-document token"))
        }),
    }
}
