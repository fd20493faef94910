//! Errors of a configuration.

use std::path::PathBuf;

/// Why a configuration is invalid. Every message names the source of the value and what to change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error(
        "cannot read the configuration {}: {source}\nhint: pass a TOML file, for example \
         configs/demo.toml; `ssa config` lists all keys",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
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
    /// An unknown key. Unknown keys are never ignored.
    #[error("{origin}: unknown key `{key}`\nhint: {hint}")]
    UnknownKey {
        /// The file, or the `--set` flag.
        origin: String,
        /// The dotted key.
        key: String,
        /// The closest existing key, or the keys to choose from.
        hint: String,
    },
    /// A value of the wrong type, or not one of the choices.
    #[error("{origin}: `{key}` must be {expected}, but is {given}")]
    WrongType {
        /// The file, or the `--set` flag.
        origin: String,
        /// The dotted key.
        key: String,
        /// The expected type.
        expected: String,
        /// The given value, with its type.
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
    /// A `--set` with a list whose quotes are missing.
    #[error(
        "--set {text}: the list is not TOML, which has quotes around words\nhint: a shell removes \
         quotes; put the argument in single quotes, such as --set \
         'evaluation.budgets=[\"16x4\", \"16x8\"]'"
    )]
    UnquotedList {
        /// The text after `--set`.
        text: String,
    },
    /// A grid without runs, or with two of a name.
    #[error("{origin}: {problem}")]
    Grid {
        /// The file.
        origin: String,
        /// What is wrong, and optionally a hint on its own line.
        problem: String,
    },
    /// The corpora or the tokenizer in the configuration cannot be used.
    #[error(transparent)]
    Data(#[from] ssa_data::DataError),
    /// An invalid value, alone or in combination with others.
    #[error("`{key}` is {value}, expected {expected}")]
    Value {
        /// The dotted key.
        key: String,
        /// The value.
        value: String,
        /// The valid values, and optionally a hint on its own line.
        expected: String,
    },
}
