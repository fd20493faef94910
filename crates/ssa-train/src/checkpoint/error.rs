//! Errors of a checkpoint.

use std::path::PathBuf;

/// Why a checkpoint cannot be used. Detecting one of these changes nothing on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file is missing, truncated or modified.
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
    /// A file of a checkpoint opened only for its model is modified.
    #[error(
        "{} is damaged: {problem}\nhint: restore it from a copy, or use another checkpoint",
        file.display()
    )]
    DamagedModel {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The checkpoint has an unsupported format.
    #[error(
        "{} has format {found}, this program reads format {newest} and older ones\nhint: resume \
         the run with version {program}, which wrote it",
        file.display()
    )]
    Format {
        /// The file that states the format.
        file: PathBuf,
        /// The format of the checkpoint.
        found: u64,
        /// The newest supported format.
        newest: u64,
        /// The version that wrote it.
        program: String,
    },
    /// The text differs from the text that the run used before.
    #[error(
        "the {which} text is not the one that {} was trained with\nhint: restore the text, or \
         pass --allow-change data.{key} to continue with different text",
        checkpoint.display()
    )]
    Text {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// The kind of text: training or held-out.
        which: &'static str,
        /// The key in `[data]` that names the text.
        key: &'static str,
    },
}
