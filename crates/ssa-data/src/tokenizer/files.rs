//! The files that a tokenizer has beside its `tokenizer.json`.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

use crate::{DataError, Result};

/// The tokenizer itself.
pub(crate) const TOKENIZER_JSON: &str = "tokenizer.json";
/// Its special tokens and chat template.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// A chat template in a file of its own, as newer tokenizers have it.
pub(crate) const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// `tokenizer_config.json` beside a tokenizer; null if there is none.
pub(super) fn read_config(tokenizer: &Path) -> Result<Value> {
    let path = tokenizer.with_file_name(TOKENIZER_CONFIG);
    let Some(bytes) = read_if_there(&path)? else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| DataError::DamagedTokenizer { path, cause: error.to_string() })
}

/// A special token, which is written as a string or as an object with its properties.
pub(super) fn special_token(config: &Value, key: &str) -> Option<String> {
    let token = config.get(key)?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// The source of the chat template: a file of its own or an entry of the configuration, which is a
/// string or a list of named templates of which one is the default.
pub(super) fn read_template(tokenizer: &Path, config: &Value) -> Result<Option<String>> {
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

/// Adds the tokens that `tokenizer_config.json` declares and the tokenizer itself lacks; says
/// whether there were any.
pub(super) fn add_declared_tokens(
    tokenizer: &mut tokenizers::Tokenizer,
    config: &Value,
) -> Result<bool, String> {
    let Some(declared) = config["added_tokens_decoder"].as_object() else {
        return Ok(false);
    };
    let mut missing = Vec::new();
    for (id, token) in declared {
        let token = AddedToken::deserialize(token).ok().zip(id.parse().ok());
        let (token, id): (_, u32) = token.ok_or_else(|| {
            format!("{TOKENIZER_CONFIG} declares `{id}`, which is no token with an id")
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
                "{TOKENIZER_CONFIG} gives `{content}` the id {id}, and the next free id is {actual}"
            ));
        }
    }
    Ok(any)
}
