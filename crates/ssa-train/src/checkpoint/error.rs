//! What can be wrong with a checkpoint.

use std::path::PathBuf;

/// Why a checkpoint cannot be used. Nothing is changed on disk when one of these is found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file is missing, cut short or altered.
    #[error(
        "{} is damaged: {problem}\nhint: restore it from a copy, or remove {} to continue {}",
        file.display(),
        checkpoint.display(),
        older.map_or_else(|| "from the beginning".to_owned(), |step| format!("from step {step}"))
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
        /// The checkpoint it belongs to.
        checkpoint: PathBuf,
        /// The step of the checkpoint before it, if there is one.
        older: Option<usize>,
    },
    /// A file of a checkpoint that is only read for its model is altered.
    #[error(
        "{} is damaged: {problem}\nhint: restore it from a copy, or take another checkpoint",
        file.display()
    )]
    DamagedModel {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The checkpoint has a format that this program does not read.
    #[error(
        "{} has format {found}, this program reads format {newest} and older ones\nhint: resume \
         the run with version {program}, which wrote it",
        file.display()
    )]
    Format {
        /// The file that says so.
        file: PathBuf,
        /// The format of the checkpoint.
        found: u64,
        /// The newest format known here.
        newest: u64,
        /// The version that wrote it.
        program: String,
    },
    /// The text differs from the text that the run read before.
    #[error(
        "the {which} text is not the one that {} was trained with\nhint: restore the text, or \
         pass --allow-change data.{key} to continue with another one",
        checkpoint.display()
    )]
    Text {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Which text: training or held-out.
        which: &'static str,
        /// The key of `[data]` that names it.
        key: &'static str,
    },
}
