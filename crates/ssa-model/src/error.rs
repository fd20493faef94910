//! The error type of this crate.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use ssa_files::FileError;
use ssa_kernels::KernelError;

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
    #[error("unknown {what} `{given}`, expected {}{}", list(expected), suggestion(given, expected))]
    UnknownName {
        /// The setting.
        what: &'static str,
        /// The word given.
        given: String,
        /// The names there are.
        expected: Vec<&'static str>,
    },
    /// A folder has no weights that this crate can read.
    #[error(
        "{} has neither model.safetensors nor model.safetensors.index.json; weights in other formats \
         (pytorch_model.bin) must be converted to safetensors first",
        path.display()
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A weight file is cut short, or was never one.
    #[error("{} is damaged or no weight file: {problem}; download or copy it again", path.display())]
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
        "{} has tensors that a model of its config.json has not: {}; do the two files belong together?",
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
    #[error("{}: tensor `{name}` has shape {actual:?}, the configuration asks for {expected:?}", path.display())]
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
    #[error("{message}")]
    Input {
        /// What does not fit.
        message: String,
    },
    /// A call asks for attentions that the method does not have.
    #[error("{message}")]
    Options {
        /// What is impossible, and what to ask for instead.
        message: String,
    },
    /// A budget is not of the form `16x4`.
    #[error(
        "`{text}` is not a sparse budget\nhint: write BLOCK_SIZExBLOCK_COUNTS with both from 1 to \
         1048576, such as 16x4 for 4 blocks of 16 tokens"
    )]
    Budget {
        /// What was given.
        text: String,
    },
    /// A selection rule cannot serve a budget.
    #[error(
        "the budget {budget} is impossible with reference selection: {part} must be {expected}\n\
         hint: change the budget, or use exact selection"
    )]
    Selection {
        /// The budget.
        budget: String,
        /// `block_size` or `block_counts`.
        part: &'static str,
        /// The values that the rule can serve.
        expected: String,
    },
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

/// "`a`, `b` or `c`".
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [init @ .., last] => {
            let init: Vec<_> = init.iter().map(|name| format!("`{name}`")).collect();
            format!("{} or `{last}`", init.join(", "))
        }
    }
}

/// The name that was probably meant, if one is close.
fn suggestion(given: &str, names: &[&str]) -> String {
    const CLOSE: f64 = 0.8;
    let similarity = |name: &str| strsim::jaro_winkler(&given.to_lowercase(), name);
    names
        .iter()
        .map(|name| (similarity(name), name))
        .filter(|(similarity, _)| *similarity >= CLOSE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, name)| format!(" (did you mean `{name}`?)"))
}
