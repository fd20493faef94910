//! The files of a tokenizer.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

use crate::chat::ChatTemplate;
use crate::{Json, Result, TextError};

/// The tokenizer itself.
pub const TOKENIZER_JSON: &str = "tokenizer.json";
/// Its special tokens and chat template.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// A chat template in its own file, in newer tokenizers.
const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// Special tokens of older tokenizers.
const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";

/// The files of a tokenizer. All except the first are optional.
pub const TOKENIZER_FILES: [&str; 4] =
    [TOKENIZER_JSON, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, CHAT_TEMPLATE];

/// The special tokens that templates can use.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The files next to a `tokenizer.json`; null for missing files.
#[derive(Debug)]
pub(super) struct Config {
    path: PathBuf,
    config: Value,
    special_tokens: Value,
}

impl Config {
    pub(super) fn read(tokenizer: &Path) -> Result<Self> {
        let path = tokenizer.with_file_name(TOKENIZER_CONFIG);
        let special_tokens = read_json(&tokenizer.with_file_name(SPECIAL_TOKENS_MAP))?;
        Ok(Self { config: read_json(&path)?, path, special_tokens })
    }

    /// The token of a key: a string, or an object with properties.
    pub(super) fn special_token(&self, key: &str) -> Option<String> {
        let token = [&self.config, &self.special_tokens]
            .into_iter()
            .find_map(|file| file.get(key).filter(|token| !token.is_null()))?;
        token_text(token).map(str::to_owned)
    }

    /// The chat templates: a separate file, or an entry in the configuration that is a string or a
    /// list of named templates. `eos_token` overrides that of the configuration.
    pub(super) fn chat_template(&self, eos_token: Option<&str>) -> Result<Option<ChatTemplate>> {
        let path = self.path.with_file_name(CHAT_TEMPLATE);
        let tokens = self.special_tokens(eos_token);
        if let Some(source) = read_if_there(&path)? {
            return Ok(Some(ChatTemplate::new(path, Some(source), None, tokens)));
        }
        let named = |wanted: &str| {
            let templates = self.config["chat_template"].as_array()?;
            let template = templates.iter().find(|template| template["name"] == wanted)?;
            Some(template["template"].as_str()?.as_bytes().to_vec())
        };
        let (default, tool_use) = match &self.config["chat_template"] {
            Value::String(source) => (Some(source.as_bytes().to_vec()), None),
            Value::Array(_) => (named("default"), named("tool_use")),
            _ => return Ok(None),
        };
        Ok(Some(ChatTemplate::new(self.path.clone(), default, tool_use, tokens)))
    }

    /// The special tokens for templates. Unset ones are undefined.
    fn special_tokens(&self, eos_token: Option<&str>) -> Vec<(String, Json)> {
        let named = SPECIAL_TOKENS.into_iter().filter_map(|name| {
            let given = eos_token.filter(|_| name == "eos_token").map(str::to_owned);
            Some((name.to_owned(), Json::String(given.or_else(|| self.special_token(name))?)))
        });
        let more = self.config["additional_special_tokens"].as_array().map(|tokens| {
            let tokens = tokens.iter().filter_map(token_text);
            let tokens = tokens.map(|token| Json::String(token.to_owned())).collect();
            ("additional_special_tokens".to_owned(), Json::List(tokens))
        });
        let extra = self.config["extra_special_tokens"].as_object().into_iter().flatten();
        let extra = extra.filter_map(|(name, token)| {
            Some((name.clone(), Json::String(token_text(token)?.to_owned())))
        });
        named.chain(more).chain(extra).collect()
    }

    /// Adds tokens that the configuration declares but the tokenizer does not have; returns whether
    /// there were any.
    pub(super) fn add_declared_tokens(
        &self,
        tokenizer: &mut tokenizers::Tokenizer,
    ) -> Result<bool, String> {
        let Some(declared) = self.config["added_tokens_decoder"].as_object() else {
            return Ok(false);
        };
        let mut missing = Vec::new();
        for (id, token) in declared {
            let token = AddedToken::deserialize(token).ok().zip(id.parse().ok());
            let (token, id): (_, u32) = token.ok_or_else(|| {
                format!("{TOKENIZER_CONFIG} declares `{id}`, which is not a token with an id")
            })?;
            if tokenizer.token_to_id(&token.content).is_none() {
                missing.push((id, token));
            }
        }
        missing.sort_unstable_by_key(|&(id, _)| id);
        let any = !missing.is_empty();
        for (id, token) in missing {
            let content = token.content.clone();
            tokenizer.add_tokens([token]).map_err(|error| error.to_string())?;
            let actual = tokenizer.token_to_id(&content);
            if actual != Some(id) {
                let actual = actual.map_or_else(|| "none".to_owned(), |id| id.to_string());
                return Err(format!(
                    "{TOKENIZER_CONFIG} gives `{content}` the id {id}, but the next free id is \
                     {actual}"
                ));
            }
        }
        Ok(any)
    }
}

/// Copies the files of a tokenizer into a directory and returns their names. Each file is replaced
/// atomically.
pub(super) fn copy(tokenizer: &Path, directory: &Path) -> Result<Vec<&'static str>> {
    ssa_files::create_directories(directory)?;
    let mut copied = Vec::new();
    for name in TOKENIZER_FILES {
        let is_tokenizer = name == TOKENIZER_JSON;
        let file = if is_tokenizer { tokenizer.to_owned() } else { tokenizer.with_file_name(name) };
        let bytes = match ssa_files::read(&file) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == ErrorKind::NotFound && !is_tokenizer => continue,
            Err(source) => return Err(TextError::Read { path: file, source }),
        };
        ssa_files::write(&directory.join(name), bytes)?;
        copied.push(name);
    }
    Ok(copied)
}

fn token_text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

fn read_json(path: &Path) -> Result<Value> {
    let Some(bytes) = read_if_there(path)? else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(&bytes).map_err(|error| TextError::damaged(path, error))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match ssa_files::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Read { path: path.to_owned(), source }),
    }
}
