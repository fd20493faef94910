//! Removing a run to make room for another.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ssa_data::TOKENIZER_FILES;

use super::{
    CHECKPOINT, CONFIG, JOURNAL, MARK, METRICS, PARTIAL_CONFIG, REPORT, SUMMARY, TENSORBOARD,
    is_vacant,
};
use crate::checkpoint::Checkpoints;
use crate::{Result, TrainError, best, tensorboard};

/// The files of a model, but for its tokenizer.
const MODEL_FILES: [&str; 4] =
    ["model.safetensors.tmp", "model.safetensors", "config.json.tmp", "config.json"];

/// Every file that a run and its evaluation write beside directories, also those that an
/// interrupted one leaves half written. The lock stays, since it is held. The configuration comes
/// last: while it is there, the directory is known as a run, so an interrupted removal can be
/// repeated.
const FILES: [&str; 8] = [
    SUMMARY,
    "summary.json.tmp",
    "report.html.partial",
    REPORT,
    METRICS,
    JOURNAL,
    PARTIAL_CONFIG,
    CONFIG,
];

/// Removes the files of a run from a directory, and leaves every other file where it is.
pub(super) fn remove_run(path: &Path) -> Result<()> {
    Checkpoints::of_run(path).remove_all()?;
    best::remove(path)?;
    tensorboard::remove(&path.join(TENSORBOARD))?;
    // With foreign files in it this directory stays; the next model is written beside them.
    remove_model_files(&path.join(CHECKPOINT))?;
    FILES.iter().try_for_each(|file| remove_file(&path.join(file)))
}

/// Removes a model and its tokenizer from a directory, and the directory if nothing else is in it.
pub(crate) fn remove_model_files(directory: &Path) -> Result<()> {
    remove_files(directory, &MODEL_FILES)?;
    for name in TOKENIZER_FILES {
        remove_files(directory, &[name, &format!("{name}.partial")])?;
    }
    Ok(())
}

/// Removes files of a directory, and the directory if nothing else is in it.
pub(crate) fn remove_files(directory: &Path, files: &[&str]) -> Result<()> {
    files.iter().try_for_each(|file| remove_file(&directory.join(file)))?;
    remove_if_empty(directory)
}

/// Removes a directory, unless there is none or something is in it.
pub(crate) fn remove_if_empty(directory: &Path) -> Result<()> {
    match fs::remove_dir(directory) {
        Err(error)
            if ![ErrorKind::NotFound, ErrorKind::DirectoryNotEmpty].contains(&error.kind()) =>
        {
            Err(TrainError::io("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a file if it is there.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(TrainError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// A directory is a run if its configuration bears the mark of one, or if it is empty.
pub(super) fn check_is_run(path: &Path) -> Result<()> {
    let refuse = |reason| Err(TrainError::NotARun { path: path.to_owned(), reason });
    if !path.is_dir() {
        return refuse("it is a file");
    }
    let is_link =
        |path: PathBuf| path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    if is_link(path.join(CHECKPOINT)) || is_link(Checkpoints::of_run(path).directory().to_owned()) {
        return refuse("its checkpoints are in another directory that a link leads to");
    }
    match fs::read_to_string(path.join(CONFIG)) {
        Ok(text) if text.starts_with(MARK) => Ok(()),
        Ok(_) => refuse("its config.toml was not written by a run"),
        Err(_) if is_vacant(path)? => Ok(()),
        Err(_) => refuse("it has files but no readable config.toml"),
    }
}
