//! What can be wrong with a configuration.

use std::path::PathBuf;

/// Why a configuration was refused. Every message names where the value came from and what to
/// change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("{origin}, line {line}, column {column}: {message}")]
    Syntax {
        /// The file.
        origin: String,
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error in characters, from 1.
        column: usize,
        /// What the parser found.
        message: String,
    },
    /// A key that does not exist: settings are never ignored.
    #[error("{origin}: unknown key `{key}`\nhint: {hint}")]
    UnknownKey {
        /// The file, or the `--set` flag.
        origin: String,
        /// The dotted key.
        key: String,
        /// The nearest key that exists, or the keys to choose from.
        hint: String,
    },
    /// A value of the wrong type, or a word that is not one of the choices.
    #[error("{origin}: `{key}` must be {expected}, but is {given}")]
    WrongType {
        /// The file, or the `--set` flag.
        origin: String,
        /// The dotted key.
        key: String,
        /// What the key takes.
        expected: String,
        /// The value given, with its type.
        given: String,
    },
    /// A `--set` that is not `key=value`.
    #[error(
        "--set {text}: expected key=value with a dotted key\nhint: for example --set \
         training.steps=100"
    )]
    Override {
        /// The text after `--set`.
        text: String,
    },
    /// The corpora or the tokenizer that the configuration names cannot be used.
    #[error(transparent)]
    Data(#[from] ssa_data::DataError),
    /// A value that cannot work, alone or with the others.
    #[error("`{key}` is {value}, expected {expected}")]
    Value {
        /// The dotted key.
        key: String,
        /// The value.
        value: String,
        /// The values that work, and possibly a hint on a line of its own.
        expected: String,
    },
}
