//! The error type of this crate.

use std::path::PathBuf;

use ssa_data::{DataError, TextError};
use ssa_files::FileError;
use ssa_infer::InferError;
use ssa_kernels::KernelError;
use ssa_model::ModelError;
use ssa_names::UnknownName;
use ssa_ranks::RanksError;

/// Why an evaluation, an analysis or a report failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// There are no target tokens.
    #[error(
        "no row of the evaluation data has a target token\n\
         hint: use more text, or a smaller --sequence-length"
    )]
    NoTargets,
    /// A logit, and so the loss, is not finite.
    #[error(
        "the {mode} loss of batch {batch} is not finite: the model has diverged, or its weights \
         are corrupt"
    )]
    NotFinite {
        /// The inference mode, with its budget.
        mode: String,
        /// The batch of the evaluation data, counted from 0.
        batch: usize,
    },
    /// There is no task of this name.
    #[error(transparent)]
    UnknownTask(#[from] UnknownName),
    /// A task, or a row or result of one, cannot be used.
    #[error("{place}: {cause}{}", hint_line(hint))]
    Task {
        /// The file, with the line or row if known.
        place: String,
        /// What is wrong with it.
        cause: String,
        /// What to do; may be empty.
        hint: String,
    },
    /// A file is not the summary of a run.
    #[error("{}: is not a summary of this version: {cause}", path.display())]
    Summary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The text could not be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Inference with a cache failed.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// An op failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The report cannot be rendered: a bug.
    #[error(transparent)]
    Report(#[from] ssa_report::RenderError),
    /// Another rank was lost.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// A summary could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

fn hint_line(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("\nhint: {hint}") }
}

impl EvalError {
    pub(crate) fn task(
        place: impl Into<String>,
        cause: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Task { place: place.into(), cause: cause.into(), hint: hint.into() }
    }
}

impl From<TextError> for EvalError {
    fn from(error: TextError) -> Self {
        Self::Data(error.into())
    }
}
