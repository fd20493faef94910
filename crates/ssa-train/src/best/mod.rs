//! The best weights of a run, by a validation loss.
//!
//! ```text
//! best/
//!   config.json, model.safetensors   the model in Hugging Face layout
//!   tokenizer.json and the like      its tokenizer, unless text is read as bytes
//!   best.json                        step and losses
//! ```
//!
//! Weights and numbers change together: they are written to `best.partial/`, the old directory is
//! renamed to `best.previous/`, the new one to `best/`, and the old one removed. Whatever happens
//! in between, one of the three is whole, and [`RunDir::best`] puts it in its place.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use ssa_data::Tokenizer;
use ssa_model::checkpoint::replace_file;
use ssa_model::{AttentionMode, Model};

use crate::durable::{copy_tokenizer, sync_names};
use crate::run_dir::{remove_files, remove_model_files};
use crate::{Measurements, Result, RunDir, TrainError};

const BEST: &str = "best";
const PARTIAL: &str = "best.partial";
const PREVIOUS: &str = "best.previous";
const NUMBERS: &str = "best.json";

/// Removed first and written last: a directory that has the numbers is whole.
const NUMBER_FILES: [&str; 2] = [NUMBERS, "best.json.tmp"];

/// What is known of the best weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Optimiser steps done.
    pub step: usize,
    /// The attention whose bits per byte decided.
    pub by: AttentionMode,
    /// The validation after that step.
    pub validation: Measurements,
}

impl RunDir {
    /// The best weights so far; none before the first validation.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file that cannot be read or does not hold what this crate
    /// wrote.
    pub fn best(&self) -> Result<Option<Best>> {
        self.settle_best()?;
        let path = self.path().join(BEST).join(NUMBERS);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
        let best = serde_json::from_str(&text).map_err(std::io::Error::from);
        Ok(Some(best.map_err(TrainError::io("read", &path))?))
    }

    /// Keeps `model` with its tokenizer and numbers as the best weights, instead of those before.
    ///
    /// # Errors
    /// [`TrainError::Model`], [`TrainError::Data`] or [`TrainError::Io`] name the file; the weights
    /// before are then still there.
    pub fn save_best(&self, model: &Model, tokenizer: &Tokenizer, best: &Best) -> Result<()> {
        self.settle_best()?;
        let [kept, partial, previous] =
            [BEST, PARTIAL, PREVIOUS].map(|name| self.path().join(name));
        model.save(&partial).map_err(TrainError::with_remedy)?;
        copy_tokenizer(tokenizer, &partial)?;
        let numbers = serde_json::to_string_pretty(best)
            .map_err(std::io::Error::from)
            .map_err(TrainError::io("write", &partial))?;
        replace_file(&partial.join(NUMBERS), |file| file.write_all((numbers + "\n").as_bytes()))?;
        if kept.exists() {
            fs::rename(&kept, &previous).map_err(TrainError::io("rename", &kept))?;
        }
        fs::rename(&partial, &kept).map_err(TrainError::io("rename", &partial))?;
        sync_names(self.path());
        remove_model(&previous)
    }

    /// Ends what an interrupted [`save_best`](Self::save_best) began.
    fn settle_best(&self) -> Result<()> {
        let [kept, partial, previous] =
            [BEST, PARTIAL, PREVIOUS].map(|name| self.path().join(name));
        if !kept.exists() {
            // The old weights step aside only once the new ones are whole.
            let whole = [&partial, &previous]
                .into_iter()
                .find(|directory| directory.join(NUMBERS).exists());
            if let Some(whole) = whole {
                fs::rename(whole, &kept).map_err(TrainError::io("rename", whole))?;
            }
        }
        remove_model(&partial)?;
        remove_model(&previous)
    }
}

/// Removes the best weights of a run and what an interrupted save left of them.
pub(crate) fn remove(run: &Path) -> Result<()> {
    [PARTIAL, PREVIOUS, BEST].iter().try_for_each(|name| remove_model(&run.join(name)))
}

fn remove_model(directory: &Path) -> Result<()> {
    remove_files(directory, &NUMBER_FILES)?;
    remove_model_files(directory)
}

#[cfg(test)]
mod tests;
