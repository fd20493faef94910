//! The error type of this crate: each message names the file or setting and the cause, and ends
//! with a hint on a line of its own where there is a remedy.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use ssa_files::FileError;
use ssa_text::TextError;

/// Why text could not be turned into rows of tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No path was given.
    #[error("no path was given to read text from\nhint: name at least one file or directory")]
    NoPaths,
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
    /// An output directory holds what must be neither overwritten nor continued otherwise.
    #[error("{}: {cause}\nhint: {hint}", path.display())]
    Output {
        /// The file or directory.
        path: PathBuf,
        /// What is there.
        cause: String,
        /// What to do.
        hint: &'static str,
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
    /// The system refuses to read a file or directory.
    #[error(
        "{}: cannot be read: {source}\nhint: check its permissions, or leave it out",
        path.display()
    )]
    Read {
        /// The path that failed, possibly below a directory that was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file, record, pattern or address cannot be read as text.
    #[error("{name}: {cause}{}", hint_line(hint))]
    Input {
        /// What was given, or the record in it.
        name: String,
        /// What is wrong with it.
        cause: String,
        /// What to do; empty if `cause` says so.
        hint: Cow<'static, str>,
    },
    /// A corpus of shards, or one of its files, is damaged or cannot be used.
    #[error("{}: {cause}\nhint: {hint}", path.display())]
    Corpus {
        /// The corpus or the file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
        /// What to do.
        hint: &'static str,
    },
    /// There is too little text, or too much.
    #[error("{cause}\nhint: {hint}")]
    Amount {
        /// What is too little or too much.
        cause: String,
        /// What to do.
        hint: Cow<'static, str>,
    },
    /// Corpora of one mixture do not fit together.
    #[error("the corpora cannot be mixed: {cause}")]
    Mixture {
        /// What does not fit, and what would.
        cause: String,
    },
    /// The thread that reads ahead has ended.
    #[error(
        "the thread that reads batches ahead has ended: {cause}\nhint: this is a bug, please \
         report it"
    )]
    ReaderStopped {
        /// What is known.
        cause: String,
    },
    /// The built-in corpus cannot be decoded or written.
    #[error("corpus snapshot: {cause}\nhint: {hint}")]
    Snapshot {
        /// What the decoder or the system said.
        cause: String,
        /// What to do.
        hint: &'static str,
    },
    /// A tokenizer cannot be loaded, trained or applied.
    #[error(transparent)]
    Text(#[from] TextError),
}

fn hint_line(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("\nhint: {hint}") }
}

/// What to do about a damaged shard.
const SHARD_HINT: &str =
    "copy both files of the shard again, or make it again with `ssa data prepare`";
/// What to do about a manifest that does not fit.
const MANIFEST_HINT: &str =
    "copy the whole directory of the corpus again, or make it again with `ssa data prepare`";

impl DataError {
    /// Whether arguments, and not files, have to be changed.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NoPaths | Self::Setting { .. } | Self::Output { .. } => true,
            Self::Text(error) => error.is_usage(),
            _ => false,
        }
    }

    /// The error of a corpus that does not come with a tokenizer.
    pub fn unknown_tokenizer(path: &Path) -> Self {
        Self::Corpus {
            path: path.to_owned(),
            cause: "the corpus does not come with a tokenizer".to_owned(),
            hint: "name the one that made it as data.tokenizer: `bytes`, a tokenizer.json, or a \
                   directory with one",
        }
    }

    /// The error of a corpus whose tokenizer is not that of the other data.
    pub fn other_tokenizer(path: &Path, own: usize, other: &str, other_vocab_size: usize) -> Self {
        Self::Corpus {
            path: path.to_owned(),
            cause: format!(
                "made with another tokenizer (vocabulary of {own}) than {other} (vocabulary of \
                 {other_vocab_size})"
            ),
            hint: "prepare all data with one tokenizer",
        }
    }

    /// The error of a path that could not be opened.
    pub(crate) fn from_open(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path.to_owned() },
            _ => Self::Read { path: path.to_owned(), source },
        }
    }

    pub(crate) fn setting(
        setting: &'static str,
        expected: &'static str,
        actual: impl ToString,
    ) -> Self {
        Self::Setting { setting, expected, actual: actual.to_string() }
    }

    pub(crate) fn input(
        name: impl Into<String>,
        cause: impl Into<String>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Input { name: name.into(), cause: cause.into(), hint: hint.into() }
    }

    pub(crate) fn damaged_shard(path: &Path, cause: impl Into<String>) -> Self {
        Self::Corpus { path: path.to_owned(), cause: cause.into(), hint: SHARD_HINT }
    }

    pub(crate) fn wrong_manifest(path: &Path, cause: impl Into<String>) -> Self {
        Self::Corpus { path: path.to_owned(), cause: cause.into(), hint: MANIFEST_HINT }
    }

    pub(crate) fn amount(cause: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self::Amount { cause: cause.into(), hint: hint.into() }
    }

    pub(crate) fn no_text() -> Self {
        Self::amount("the documents hold no text", "add files with text")
    }
}
