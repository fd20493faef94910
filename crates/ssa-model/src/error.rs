//! The error type of this crate.

use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ssa_files::FileError;
use ssa_kernels::KernelError;
use ssa_kernels::ops::attention::AttentionMode;
use ssa_kernels::ops::attention::selection::InvalidBudget;
use ssa_names::UnknownName;

/// What is wrong with a configuration, a checkpoint or the input of a model.
///
/// Every message names the file, tensor or key and includes the reason from the operating system or
/// parser. No variant has a `source`, which would repeat the reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file or folder could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file could not be read.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// The failed action.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        reason: std::io::Error,
    },
    /// A JSON file is truncated or incomplete.
    #[error("cannot parse {}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        reason: serde_json::Error,
    },
    /// A configuration key is missing or invalid.
    #[error("{origin}: `{key}` is {value}, expected {expected}")]
    Config {
        /// The file the key was read from, or `model configuration` without a file.
        origin: String,
        /// The key; keys of nested objects are joined by dots.
        key: String,
        /// The value found, or `missing`.
        value: String,
        /// The values allowed.
        expected: String,
    },
    /// An unknown name of a preset or setting.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    /// A folder has no weights in a supported format.
    #[error(
        "{} has neither model.safetensors nor model.safetensors.index.json\n\
         hint: convert weights in other formats (pytorch_model.bin) to safetensors first",
        path.display()
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A weight file is truncated, or is not a safetensors file.
    #[error(
        "{} is corrupt or not a safetensors file: {problem}\nhint: download or copy it again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A tensor of the model is missing from the checkpoint.
    #[error("{} has no tensor `{name}`", path.display())]
    MissingTensor {
        /// The file, or the index of a sharded checkpoint.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The checkpoint has tensors that the model does not have: loading the rest would give a
    /// different model.
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
        "{}: tensor `{name}` has shape {actual:?}, the configuration expects {expected:?}",
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
    /// A tensor of a checkpoint has an unsupported dtype.
    #[error("{}: tensor `{name}` is stored as {dtype}, expected F32, BF16 or F16", path.display())]
    TensorDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The dtype, as safetensors names it.
        dtype: String,
    },
    /// Gates cannot be added to a model that has them.
    #[error("the model has gates (self_attn.g_proj) already: it is an SSA model")]
    HasGates,
    /// The gates of a model cannot be left out.
    #[error("the model needs its gates: {problem}\nhint: keep them with `ssa export --as ssa`")]
    NeedsGates {
        /// Why not.
        problem: String,
    },
    /// The parameters do not match the configuration.
    #[error("the parameters do not fit the configuration: {problem}")]
    Parameters {
        /// The first difference.
        problem: String,
    },
    /// Tokens, documents, labels or masks do not match each other or the model.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The method does not have the requested attention.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A budget does not have the form `16x4`.
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

    /// For `map_err`: adds the action and the file to an I/O error.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |reason| Self::Io { action, path: path.to_owned(), reason }
    }
}

/// The first five names and the number of the others.
fn first_few(names: &[String]) -> String {
    const FEW: usize = 5;
    let shown =
        names.iter().take(FEW).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(FEW) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A mismatch between tokens, documents, labels, masks or the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The number of ids is 0 or not rows times tokens.
    #[error("{ids} ids given for {batch} rows of {tokens} tokens")]
    Ids {
        /// Ids given.
        ids: usize,
        /// Rows.
        batch: usize,
        /// Tokens of a row.
        tokens: usize,
    },
    /// The documents cover a different number of tokens.
    #[error("the documents cover {covered} tokens, but there are {ids}")]
    Documents {
        /// Tokens in the documents.
        covered: usize,
        /// Ids given.
        ids: usize,
    },
    /// A document spans more than one row.
    #[error("the document at tokens {range:?} crosses the end of a row of {tokens}")]
    DocumentCrossesRow {
        /// Tokens of the document.
        range: Range<usize>,
        /// Tokens of a row.
        tokens: usize,
    },
    /// A list does not have one entry per token.
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

/// The method does not have the requested attention.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The method has no attention of this mode.
    #[error("method {method} has no {mode} attention\nhint: use attention mode {has}")]
    NoSuchMode {
        /// The method.
        method: &'static str,
        /// The requested mode.
        mode: AttentionMode,
        /// A mode that it has.
        has: AttentionMode,
    },
    /// The method needs gates, and the model has none.
    #[error(
        "method {method} needs gates (self_attn.g_proj), which this model does not have\n\
         hint: add them with `ssa convert`, or use method full"
    )]
    NoGates {
        /// The method.
        method: &'static str,
    },
    /// A method is declared as aligned, but its modes cannot be aligned.
    #[error(
        "method `{method}` cannot align its outputs: this needs one attention in each mode, with a \
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
    /// A training step does not name one stream per layer.
    #[error("{streams} streams given for {layers} layers")]
    StreamCount {
        /// Streams given.
        streams: usize,
        /// Layers of the model.
        layers: usize,
    },
}
