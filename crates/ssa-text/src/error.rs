//! The error type of this crate: each message names the file or setting and the cause, and ends
//! with a hint on a line of its own where there is a remedy.

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
        /// The range allowed.
        expected: &'static str,
        /// The value given.
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
        /// The path as given.
        path: PathBuf,
    },
    /// The system refuses to read a file.
    #[error("{}: cannot be read: {source}\nhint: check its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not a tokenizer that can be used.
    #[error("{}: not a usable tokenizer: {cause}\nhint: {hint}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
        /// How to get one.
        hint: String,
    },
    /// Nothing says which token ends a document.
    #[error("{}: {cause}\nhint: name the token with `eos_token`", path.display())]
    NoEosToken {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// What is missing.
        cause: String,
    },
    /// A chat template is wrong, exceeds its limits or refuses a conversation.
    #[error("chat template of {}: {cause}", path.display())]
    ChatTemplate {
        /// The file with the template.
        path: PathBuf,
        /// What the template engine said.
        cause: String,
    },
    /// A conversation needs a chat template, and the tokenizer has none.
    #[error(
        "{tokenizer}: the tokenizer has no chat template\nhint: use the model with `ssa generate`, \
         or a model trained for chat, whose tokenizer_config.json or chat_template.jinja has one"
    )]
    NoChatTemplate {
        /// The tokenizer's name or file.
        tokenizer: String,
    },
    /// A conversation is not a list of messages, or needs a chat template and there is none.
    #[error("{cause}")]
    Conversation {
        /// The message and key, and what is wrong with it.
        cause: String,
    },
    /// A tokenizer cannot be trained.
    #[error(
        "the tokenizer cannot be trained: {cause}\nhint: add text, or choose another `vocab_size`"
    )]
    Train {
        /// What the trainer said.
        cause: String,
    },
    /// There is no text to train a tokenizer on.
    #[error("the documents hold no text")]
    NoText,
    /// A text is not UTF-8, which its use requires.
    #[error(
        "{}not UTF-8 at byte {position}\nhint: convert the text, for example with iconv, or use \
         the tokenizer `bytes`",
        prefix(name)
    )]
    NotUtf8 {
        /// Name of the document, where it is known.
        name: Option<String>,
        /// The first byte that is not.
        position: usize,
    },
    /// A text has too long a stretch that has to be encoded in one piece.
    #[error(
        "{}{bytes} bytes have to be encoded in one piece, at most {limit} are possible: this \
         tokenizer is not known to allow a cut there without changing tokens\nhint: split the \
         document, or leave it out",
        prefix(name)
    )]
    TooLong {
        /// Name of the document, where it is known.
        name: Option<String>,
        /// Bytes of the stretch.
        bytes: usize,
        /// Bytes possible.
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

impl TextError {
    /// Whether a setting, and not a file, has to be changed.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Setting { .. } | Self::Exists { .. })
    }

    /// The error with the name of its document, if it lacks that.
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

    /// The error of a path that could not be opened.
    pub(crate) fn from_open(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path.to_owned() },
            _ => Self::Read { path: path.to_owned(), source },
        }
    }

    /// The error of a `tokenizer.json` that is damaged or asks for what is not possible.
    pub(crate) fn damaged(path: &Path, cause: impl ToString) -> Self {
        Self::Tokenizer {
            path: path.to_owned(),
            cause: cause.to_string(),
            hint: "get the file again from where the model comes from".to_owned(),
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
