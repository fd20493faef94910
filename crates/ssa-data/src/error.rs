//! The error type of this crate. Each message names the file or setting and the cause, and ends
//! with a hint on its own line if there is a remedy.

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
        /// The allowed range.
        expected: &'static str,
        /// The given value.
        actual: String,
    },
    /// An output directory contains files that must not be overwritten or continued with different
    /// settings.
    #[error("{}: {cause}\nhint: {hint}", path.display())]
    Output {
        /// The file or directory.
        path: PathBuf,
        /// The problem.
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
        /// The given path.
        path: PathBuf,
    },
    /// A file or directory cannot be read.
    #[error(
        "{}: cannot be read: {source}\nhint: {}leave it out",
        path.display(),
        permissions_hint(source)
    )]
    Read {
        /// The path that failed, possibly inside a given directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file, record, pattern or address cannot be used.
    #[error("{name}: {cause}{}", hint_line(hint))]
    Input {
        /// The input, or a record in it.
        name: String,
        /// What is wrong with it.
        cause: String,
        /// What to do; may be empty.
        hint: Cow<'static, str>,
    },
    /// A corpus of shards, or one of its files, is corrupt or cannot be used.
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
        /// The problem.
        cause: String,
        /// What to do.
        hint: Cow<'static, str>,
    },
    /// The corpora of a mixture do not match.
    #[error("the corpora cannot be mixed: {cause}")]
    Mixture {
        /// The mismatch.
        cause: String,
    },
    /// The system refuses to start a thread.
    #[error(
        "cannot start a thread: {cause}\nhint: pass a smaller --threads, or raise the limits of \
         the system (ulimit -u, ulimit -v)"
    )]
    Thread {
        /// What the system says.
        cause: String,
    },
    /// A compressed file needs more memory than there is.
    #[error(
        "{name}: not enough memory to read it\nhint: free memory, or raise its limit (ulimit -v, \
         control groups)"
    )]
    Memory {
        /// The file.
        name: String,
    },
    /// The prefetch thread has ended.
    #[error(
        "the prefetch thread has ended: {cause}\nhint: this is a bug, please \
         report it"
    )]
    ReaderStopped {
        /// The reason.
        cause: String,
    },
    /// The built-in corpus cannot be decoded or written.
    #[error("corpus snapshot: {cause}\nhint: {hint}")]
    Snapshot {
        /// The reason.
        cause: String,
        /// What to do.
        hint: &'static str,
    },
    /// A tokenizer cannot be loaded, trained or applied.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// Helps only against missing permissions.
fn permissions_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "check its permissions, or ",
        _ => "",
    }
}

fn hint_line(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("\nhint: {hint}") }
}

/// What to do about a damaged shard.
const SHARD_HINT: &str =
    "copy both files of the shard again, or recreate it with `ssa data prepare`";
/// What to do about a manifest that does not match.
const MANIFEST_HINT: &str =
    "copy the whole directory of the corpus again, or recreate it with `ssa data prepare`";

impl DataError {
    /// Whether the cause is an argument, not a file.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NoPaths | Self::Setting { .. } | Self::Output { .. } => true,
            Self::Text(error) => error.is_usage(),
            _ => false,
        }
    }

    /// The error for a corpus without a tokenizer.
    pub fn unknown_tokenizer(path: &Path) -> Self {
        Self::Corpus {
            path: path.to_owned(),
            cause: "the corpus has no tokenizer".to_owned(),
            hint: "set data.tokenizer to the one that made it: `bytes`, a tokenizer.json, or a \
                   directory with one",
        }
    }

    /// The error for a corpus with a different tokenizer than the other data.
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

    /// The error for a path that cannot be opened.
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
