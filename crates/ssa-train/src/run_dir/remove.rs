//! Removing a run to replace it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CHECKPOINT, CONFIG, MARK, REPORT, SUMMARY, is_vacant};
use crate::checkpoint::Checkpoints;
use crate::journal::JOURNAL;
use crate::step_log::METRICS;
use crate::{Result, TrainError, best, model_files, tensorboard};

/// The top-level files of a run and its evaluation. The lock file stays, because it is held. The
/// configuration comes last: it marks the directory as a run, so an interrupted removal can be
/// repeated.
const FILES: [&str; 5] = [SUMMARY, REPORT, METRICS, JOURNAL, CONFIG];

/// Removes the files of a run from a directory and keeps every other file.
pub(super) fn remove_run(path: &Path) -> Result<()> {
    Checkpoints::of_run(path).remove_all()?;
    best::remove(path)?;
    tensorboard::remove(path)?;
    // This directory stays if it holds other files, and the next model is written next to them.
    model_files::remove(&path.join(CHECKPOINT))?;
    for file in FILES {
        ssa_files::remove_file(&path.join(file))?;
    }
    Ok(())
}

/// Checks that a directory is a run: its configuration has the mark, or it is empty.
pub(super) fn check_is_run(path: &Path) -> Result<()> {
    let refuse = |reason| Err(TrainError::NotARun { path: path.to_owned(), reason });
    if !path.is_dir() {
        return refuse("it is a file");
    }
    let is_link =
        |path: PathBuf| path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    if is_link(path.join(CHECKPOINT)) || is_link(Checkpoints::of_run(path).directory().to_owned()) {
        return refuse("`checkpoints` is a symbolic link");
    }
    match fs::read_to_string(path.join(CONFIG)) {
        Ok(text) if text.starts_with(MARK) => Ok(()),
        Ok(_) => refuse("its config.toml was not written by a run"),
        Err(_) if is_vacant(path)? => Ok(()),
        Err(_) => refuse("it has files but no readable config.toml"),
    }
}
