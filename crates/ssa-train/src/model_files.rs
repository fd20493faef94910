//! The files of a model and its tokenizer in a directory.

use std::path::Path;

use ssa_data::TOKENIZER_FILES;

use crate::Result;

/// Removes a model and its tokenizer from a directory, with the remains of killed processes, and
/// the directory if it is empty afterwards.
///
/// # Errors
/// [`TrainError::File`](crate::TrainError::File).
pub(crate) fn remove(directory: &Path) -> Result<()> {
    ssa_files::remove_leftovers(directory)?;
    ssa_files::remove_files(directory, &ssa_model::checkpoint::FILES)?;
    Ok(ssa_files::remove_files(directory, &TOKENIZER_FILES)?)
}
