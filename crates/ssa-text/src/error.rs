//! The error type of this crate. Each message names the file or setting and the cause, and ends
//! with a hint on its own line if there is a remedy.

use std::io;
use std::path::{Path, PathBuf};

use ssa_files::FileError;

/// Why a tokenizer cannot be loaded, trained or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A setting is outside its range.
    #[error("`{setting}` is {actual}, expected {expected}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// The allowed range.
        expected: &'static str,
        /// The given value.
        actual: String,
    },
    /// A file would be overwritten.
    #[error(
        "{}: already exists\nhint: choose another directory, or move the file away",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A path does not exist.
    #[error(
        "{}: no such file or directory\nhint: check the spelling; relative paths start at the \
         working directory",
        path.display()
    )]
    Missing {
        /// The given path.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}{}", path.display(), permissions_hint(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not a usable tokenizer.
    #[error("{}: not a usable tokenizer: {cause}\nhint: {hint}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
        /// How to get one.
        hint: String,
    },
    /// The end-of-document token is unknown.
    #[error("{}: {cause}\nhint: name the token with `eos_token`", path.display())]
    NoEosToken {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// What is missing.
        cause: String,
    },
    /// A chat template is invalid, exceeds its limits or refuses a conversation.
    #[error("chat template of {}: {cause}", path.display())]
    ChatTemplate {
        /// The file with the template.
        path: PathBuf,
        /// The message of the template engine.
        cause: String,
    },
    /// A conversation needs a chat template, but the tokenizer has none.
    #[error(
        "{tokenizer}: the tokenizer has no chat template\nhint: use the model with `ssa generate`, \
         or a model trained for chat, whose tokenizer_config.json or chat_template.jinja has one"
    )]
    NoChatTemplate {
        /// The tokenizer's name or file.
        tokenizer: String,
    },
    /// A conversation is not a list of messages, or needs a missing chat template.
    #[error("{cause}")]
    Conversation {
        /// The message and key, and the problem.
        cause: String,
    },
    /// A tokenizer cannot be trained.
    #[error(
        "the tokenizer cannot be trained: {cause}\nhint: add text, or choose another `vocab_size`"
    )]
    Train {
        /// The message of the trainer.
        cause: String,
    },
    /// There is no text to train a tokenizer on.
    #[error("the documents hold no text")]
    NoText,
    /// A text is not valid UTF-8.
    #[error(
        "{}not UTF-8 at byte {position}\nhint: convert the text, for example with iconv, or use \
         the tokenizer `bytes`",
        prefix(name)
    )]
    NotUtf8 {
        /// Name of the document, if known.
        name: Option<String>,
        /// The position of the first invalid byte.
        position: usize,
    },
    /// A text has a piece that is too long to encode.
    #[error(
        "{}a piece of {bytes} bytes is too long to encode, the limit is {limit}: this \
         tokenizer has no known way to split it without changing tokens\nhint: split the \
         document, or leave it out",
        prefix(name)
    )]
    TooLong {
        /// Name of the document, if known.
        name: Option<String>,
        /// Bytes of the piece.
        bytes: usize,
        /// Maximum number of bytes.
        limit: usize,
    },
    /// A token id is not in the vocabulary.
    #[error(
        "token {id} does not exist in a vocabulary of {vocab_size}\nhint: use the tokenizer that \
         made the tokens"
    )]
    UnknownToken {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
}

fn prefix(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default()
}

fn permissions_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "\nhint: check its permissions",
        _ => "",
    }
}

impl TextError {
    /// Whether the cause is a setting, not a file.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Setting { .. } | Self::Exists { .. })
    }

    /// Adds the name of the document, if it is missing.
    #[must_use]
    pub fn in_document(self, document: &str) -> Self {
        match self {
            Self::NotUtf8 { name: None, position } => {
                Self::NotUtf8 { name: Some(document.to_owned()), position }
            }
            Self::TooLong { name: None, bytes, limit } => {
                Self::TooLong { name: Some(document.to_owned()), bytes, limit }
            }
            other => other,
        }
    }

    /// The error for a path that cannot be opened.
    pub(crate) fn from_open(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path.to_owned() },
            _ => Self::Read { path: path.to_owned(), source },
        }
    }

    /// The error for a `tokenizer.json` that is corrupt or exceeds a limit.
    pub(crate) fn damaged(path: &Path, cause: impl ToString) -> Self {
        Self::Tokenizer {
            path: path.to_owned(),
            cause: cause.to_string(),
            hint: "download the tokenizer of the model again".to_owned(),
        }
    }

    pub(crate) fn setting(
        setting: &'static str,
        expected: &'static str,
        actual: impl ToString,
    ) -> Self {
        Self::Setting { setting, expected, actual: actual.to_string() }
    }
}
