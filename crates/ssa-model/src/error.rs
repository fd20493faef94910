//! The error type of this crate.

use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ssa_files::FileError;
use ssa_kernels::KernelError;
use ssa_kernels::ops::attention::AttentionMode;
use ssa_kernels::ops::attention::selection::InvalidBudget;
use ssa_names::UnknownName;

/// What was wrong with a configuration, a checkpoint or the input of a model.
///
/// Every message is complete: it names the file, tensor or key, and contains the reason the
/// operating system or parser gave. Hence no variant has a `source` that would repeat it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file or folder could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The operating system refused to read a file.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        reason: std::io::Error,
    },
    /// A JSON file is cut short or lacks what it must hold.
    #[error("cannot parse {}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        reason: serde_json::Error,
    },
    /// A key of a configuration is missing or has a value that no model can have.
    #[error("{origin}: `{key}` is {value}, expected {expected}")]
    Config {
        /// The file the key was read from, or `model configuration` where there is no file.
        origin: String,
        /// The key, with a dot before the key of an inner object.
        key: String,
        /// The value found, or `missing`.
        value: String,
        /// The values allowed.
        expected: String,
    },
    /// A word is not one of the names of a setting.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    /// A folder has no weights that this crate can read.
    #[error(
        "{} has neither model.safetensors nor model.safetensors.index.json\n\
         hint: convert weights in other formats (pytorch_model.bin) to safetensors first",
        path.display()
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A weight file is cut short, or was never one.
    #[error(
        "{} is corrupt or not a safetensors file: {problem}\nhint: download or copy it again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The model has a tensor that the checkpoint lacks.
    #[error("{} has no tensor `{name}`", path.display())]
    MissingTensor {
        /// The file, or the index of a sharded checkpoint.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The checkpoint has tensors that the model lacks: loading the rest would give another model.
    #[error(
        "{} has tensors that config.json does not describe: {}\n\
         hint: check that the two files belong to the same model",
        path.display(),
        first_few(names)
    )]
    UnexpectedTensors {
        /// The file, or the index of a sharded checkpoint.
        path: PathBuf,
        /// The tensors.
        names: Vec<String>,
    },
    /// A tensor of a checkpoint does not have the shape that its `config.json` implies.
    #[error(
        "{}: tensor `{name}` has shape {actual:?}, the configuration asks for {expected:?}",
        path.display()
    )]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape in the model.
        expected: Vec<usize>,
        /// The shape in the file.
        actual: Vec<usize>,
    },
    /// A tensor of a checkpoint is not stored in a floating-point format this crate reads.
    #[error("{}: tensor `{name}` is stored as {dtype}, expected F32, BF16 or F16", path.display())]
    TensorDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The format, in the words of safetensors.
        dtype: String,
    },
    /// Parameters are not those of a model of the given configuration.
    #[error("the parameters do not fit the configuration: {problem}")]
    Parameters {
        /// The first difference.
        problem: String,
    },
    /// Tokens, documents, labels and masks of a call do not fit each other or the model.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A call asks for attentions that the method does not have.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A budget is not of the form `16x4`.
    #[error(transparent)]
    Budget(#[from] InvalidBudget),
    /// An op refused its arguments.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl ModelError {
    pub(crate) fn config(
        origin: &str,
        key: impl Into<String>,
        value: impl Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config {
            origin: origin.to_owned(),
            key: key.into(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    /// For `map_err`: names the file a system call failed on.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |reason| Self::Io { action, path: path.to_owned(), reason }
    }
}

/// Enough names to see what they have in common.
fn first_few(names: &[String]) -> String {
    const FEW: usize = 5;
    let shown =
        names.iter().take(FEW).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(FEW) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Tokens, documents, labels and masks that do not fit each other or the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// There are not as many ids as rows and tokens say, or none.
    #[error("{ids} ids given for {batch} rows of {tokens} tokens")]
    Ids {
        /// Ids given.
        ids: usize,
        /// Rows.
        batch: usize,
        /// Tokens of a row.
        tokens: usize,
    },
    /// The documents are those of another number of tokens.
    #[error("the documents cover {covered} tokens, but there are {ids}")]
    Documents {
        /// Tokens in the documents.
        covered: usize,
        /// Ids given.
        ids: usize,
    },
    /// A document is in more than one row.
    #[error("the document at tokens {range:?} crosses the end of a row of {tokens}")]
    DocumentCrossesRow {
        /// Tokens of the document.
        range: Range<usize>,
        /// Tokens of a row.
        tokens: usize,
    },
    /// A list does not have one entry for each token.
    #[error("{list} has {len} entries for {tokens} tokens")]
    Length {
        /// Its name.
        list: &'static str,
        /// Its entries.
        len: usize,
        /// Tokens of the input.
        tokens: usize,
    },
    /// A document has more tokens than the model has positions.
    #[error(
        "a document of {tokens} tokens is longer than the model's max_position_embeddings of \
         {positions}"
    )]
    DocumentTooLong {
        /// Tokens of the document.
        tokens: usize,
        /// Positions of the model.
        positions: usize,
    },
}

/// A call asks for attentions that the method does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The method has no attention of this mode.
    #[error("method {method} has no {mode} attention\nhint: use attention mode {has}")]
    NoSuchMode {
        /// The method.
        method: &'static str,
        /// The mode asked for.
        mode: AttentionMode,
        /// A mode that it has.
        has: AttentionMode,
    },
    /// A method is declared as aligned, but its modes cannot be.
    #[error(
        "method `{method}` cannot align its outputs: that takes one attention in each mode, with a \
         common gate"
    )]
    NotAlignable {
        /// The method.
        method: &'static str,
    },
    /// An attention has no implementation over a cache of keys and values.
    #[error("attention `{attention}` cannot run over a cache of keys and values")]
    NotCached {
        /// The kind of attention.
        attention: &'static str,
    },
    /// A training step does not name a stream for every layer.
    #[error("{streams} streams given for {layers} layers")]
    StreamCount {
        /// Streams given.
        streams: usize,
        /// Layers of the model.
        layers: usize,
    },
}
