//! The best weights of a run, by a validation loss.
//!
//! ```text
//! best/
//!   config.json, model.safetensors   the model in Hugging Face layout, with its Python files
//!   tokenizer.json and the like      its tokenizer, unless text is read as bytes
//!   best.json                        step and losses
//! ```
//!
//! Weights and losses change together: they are written to `best.partial/`, the old directory is
//! renamed to `best.previous/`, the new one to `best/`, and the old one is removed. After an
//! interruption one of the three is complete, and [`Best::load`] restores it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::{Deserialize, Serialize};
use ssa_data::Tokenizer;
use ssa_files::{FileError, Operation};
use ssa_model::{AttentionMode, Model};

use crate::measurements::Measurements;
use crate::{Result, model_files};

const BEST: &str = "best";
const PARTIAL: &str = "best.partial";
const PREVIOUS: &str = "best.previous";
/// Written last.
const NUMBERS: &str = "best.json";

/// Step and losses of the best weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Optimizer steps done.
    pub step: usize,
    /// The mode whose bits per byte are compared.
    pub by: AttentionMode,
    /// The validation after that step.
    pub validation: Measurements,
}

impl Best {
    /// Loads the best weights of a run so far; `None` before the first validation. Completes an
    /// interrupted save.
    ///
    /// # Errors
    /// [`TrainError::File`](crate::TrainError::File) names the file that cannot be read or parsed.
    pub(crate) fn load(run: &Path) -> Result<Option<Self>> {
        settle(run)?;
        let path = run.join(BEST).join(NUMBERS);
        if !path.exists() {
            return Ok(None);
        }
        let parse = |text: String| serde_json::from_str(&text).map_err(io::Error::from);
        let best = fs::read_to_string(&path).and_then(parse);
        Ok(Some(best.map_err(FileError::at(Operation::Read, &path))?))
    }

    /// Saves `model`, its tokenizer and these losses as the best weights of a run, replacing the
    /// previous ones.
    ///
    /// # Errors
    /// [`TrainError`](crate::TrainError) names the file; the previous weights are kept.
    pub(crate) fn save(&self, run: &Path, model: &Model, tokenizer: &Tokenizer) -> Result<()> {
        settle(run)?;
        let [kept, partial, previous] = [BEST, PARTIAL, PREVIOUS].map(|name| run.join(name));
        if !partial.exists() {
            ssa_files::create_directory(&partial)?;
        }
        model.save(&partial)?;
        tokenizer.copy_to(&partial)?;
        ssa_files::write_json(&partial.join(NUMBERS), self)?;
        if kept.exists() {
            ssa_files::rename(&kept, &previous)?;
        }
        ssa_files::rename(&partial, &kept)?;
        discard(&previous, &kept)
    }
}

/// Completes an interrupted [`Best::save`].
fn settle(run: &Path) -> Result<()> {
    let [kept, partial, previous] = [BEST, PARTIAL, PREVIOUS].map(|name| run.join(name));
    if !kept.exists() {
        // The old weights are renamed only after the new ones are complete.
        let whole =
            [&partial, &previous].into_iter().find(|directory| directory.join(NUMBERS).exists());
        if let Some(whole) = whole {
            ssa_files::rename(whole, &kept)?;
        }
    }
    discard(&partial, &kept)?;
    discard(&previous, &kept)
}

/// Removes a directory of weights. Files of the user in it, such as notes, move to `kept`.
fn discard(directory: &Path, kept: &Path) -> Result<()> {
    remove_model(directory)?;
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(FileError::at(Operation::Read, directory))?,
    };
    for entry in entries {
        let entry = entry.map_err(FileError::at(Operation::Read, directory))?;
        let target = kept.join(entry.file_name());
        if kept.exists() && !target.exists() {
            ssa_files::rename(&entry.path(), &target)?;
        }
    }
    Ok(ssa_files::remove_directory_if_empty(directory)?)
}

/// Removes the best weights of a run and the remains of an interrupted save.
pub(crate) fn remove(run: &Path) -> Result<()> {
    [PARTIAL, PREVIOUS, BEST].iter().try_for_each(|name| remove_model(&run.join(name)))
}

fn remove_model(directory: &Path) -> Result<()> {
    // Remove it first: a directory with this file counts as complete.
    ssa_files::remove_file(&directory.join(NUMBERS))?;
    model_files::remove(directory)
}

#[cfg(test)]
mod tests;
