//! What can be wrong with a checkpoint.

use std::path::{Path, PathBuf};

/// Why a checkpoint cannot be used. Nothing is changed on disk when one of these is found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file is missing, cut short or altered.
    #[error("{} is damaged: {problem}; {}", file.display(), remedy(checkpoint, *older))]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        problem: String,
        /// The checkpoint it belongs to.
        checkpoint: PathBuf,
        /// The step of the checkpoint before it, if there is one.
        older: Option<usize>,
    },
    /// A file of a checkpoint that is only read for its model is altered.
    #[error("{} is damaged: {problem}; restore it from a copy, or take another checkpoint", file.display())]
    DamagedModel {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The checkpoint has another format than this program writes.
    #[error(
        "{} has format {found}, this program reads format {expected}; continue the run with version {program} of the \
         program, which wrote it",
        file.display()
    )]
    Format {
        /// The file that says so.
        file: PathBuf,
        /// The format of the checkpoint.
        found: u64,
        /// The format known here.
        expected: u64,
        /// The version that wrote it.
        program: String,
    },
    /// A checkpoint could not be saved.
    #[error("the checkpoint of step {step} could not be saved: {source}; {}", kept(*older))]
    NotSaved {
        /// The step.
        step: usize,
        /// The step of the newest checkpoint there is.
        older: Option<usize>,
        /// The reason.
        source: Box<crate::TrainError>,
    },
    /// The text differs from the text that the run read before.
    #[error(
        "the training text is not the one that {} was trained on; restore the text, or pass --allow-change data.paths to \
         go on with another one",
        checkpoint.display()
    )]
    Text {
        /// The checkpoint.
        checkpoint: PathBuf,
    },
}

fn remedy(checkpoint: &Path, older: Option<usize>) -> String {
    let from =
        older.map_or_else(|| "from the beginning".to_owned(), |step| format!("from step {step}"));
    format!("restore it from a copy, or remove {} to continue {from}", checkpoint.display())
}

fn kept(older: Option<usize>) -> String {
    match older {
        Some(step) => {
            format!("the checkpoint of step {step} is whole, and the run can be resumed from it")
        }
        None => "the run can be resumed from its beginning".to_owned(),
    }
}
