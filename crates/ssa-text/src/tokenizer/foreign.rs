//! Recognizes other kinds of tokenizer files, to name them in messages.

use std::path::Path;

use serde_json::Value;

use super::files::TOKENIZER_JSON;
use crate::TextError;

/// Files of other tokenizers, and their kinds.
const NAMES: [(&str, &str); 6] = [
    ("tekken.json", "a Tekken vocabulary"),
    ("tokenizer.model", "a SentencePiece or tiktoken model"),
    ("sentencepiece.bpe.model", "a SentencePiece model"),
    ("spiece.model", "a SentencePiece model"),
    ("vocab.json", "a vocabulary without its merges"),
    ("vocab.txt", "a WordPiece vocabulary"),
];

const HINT: &str = "a tokenizer.json is needed; transformers writes one: \
                    `AutoTokenizer.from_pretrained(MODEL).save_pretrained(DIRECTORY)`";

/// The error for a directory without `tokenizer.json` but with another kind of tokenizer.
pub(super) fn in_directory(directory: &Path) -> Option<TextError> {
    let (name, kind) = NAMES.into_iter().find(|(name, _)| directory.join(name).is_file())?;
    Some(TextError::Tokenizer {
        path: directory.to_owned(),
        cause: format!("it has no {TOKENIZER_JSON}, only {name} ({kind})"),
        hint: HINT.to_owned(),
    })
}

/// The error for a file with another kind of content.
pub(super) fn in_file(path: &Path, bytes: &[u8]) -> Option<TextError> {
    let kind = match serde_json::from_slice::<Value>(bytes) {
        Ok(json) => json_kind(&json)?,
        Err(_) => other_kind(bytes)?,
    };
    Some(TextError::Tokenizer {
        path: path.to_owned(),
        cause: format!("it is {kind}"),
        hint: HINT.to_owned(),
    })
}

fn json_kind(json: &Value) -> Option<&'static str> {
    let object = json.as_object()?;
    let has = |key: &str| object.contains_key(key);
    if has("model") {
        None
    } else if has("vocab") && has("config") {
        Some("a Tekken vocabulary")
    } else if has("tokenizer_class") || has("chat_template") || has("added_tokens_decoder") {
        Some("a tokenizer_config.json")
    } else if has("model_type") || has("architectures") {
        Some("the config.json of a model")
    } else if !object.is_empty() && object.values().all(Value::is_u64) {
        Some("a vocabulary without its merges (vocab.json)")
    } else {
        None
    }
}

fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"GGUF") {
        return Some("a GGUF model");
    }
    // A list of pieces: field 1 of the model is a message whose field 1 is a string.
    if matches!(bytes, [0x0a, _, 0x0a, ..]) {
        return Some("a SentencePiece model");
    }
    let first = bytes.split(|&byte| byte == b'\n').next()?;
    let first = str::from_utf8(first).ok()?.trim_end();
    if first.starts_with("#version") {
        return Some("a list of merges (merges.txt)");
    }
    let (token, rank) = first.split_once(' ')?;
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    (token.chars().all(base64) && rank.parse::<u32>().is_ok()).then_some("a tiktoken vocabulary")
}
