//! The directory of a run.
//!
//! ```text
//! runs/ssa-20260131-154502/
//!   config.toml      the configuration with all defaults; usable as input again
//!   metrics.jsonl    one JSON object per optimiser step
//!   checkpoint/      the model in Hugging Face layout
//!   summary.json     \
//!   report.html      / what evaluation adds
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ssa_model::Model;

use crate::config::TrainConfig;
use crate::metrics::MetricsWriter;
use crate::{Result, TrainError};

const CONFIG: &str = "config.toml";
const PARTIAL_CONFIG: &str = "config.toml.partial";
const METRICS: &str = "metrics.jsonl";
const CHECKPOINT: &str = "checkpoint";

/// Every file that a run and its evaluation write, also those that an interrupted one leaves half written. The configuration comes last: while it is there, the directory is
/// known as a run, so an interrupted removal can be repeated.
const FILES: [&str; 10] = [
    "summary.json",
    "report.html.partial",
    "report.html",
    METRICS,
    "checkpoint/model.safetensors.tmp",
    "checkpoint/model.safetensors",
    "checkpoint/config.json.tmp",
    "checkpoint/config.json",
    PARTIAL_CONFIG,
    CONFIG,
];

/// First line of a run's `config.toml`: by it a directory is known to hold a run that may be overwritten.
const MARK: &str = "# The resolved configuration of a training run of `ssa`.";

/// What to do with a run directory that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse: nothing is overwritten unasked.
    Refuse,
    /// Remove the files of the run in it, and nothing else.
    Replace,
}

/// The directory of a run, created and ready to be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Creates `<parent>/<name>-<UTC time>`, with `-2`, `-3`, ... appended if runs start in the same second.
    ///
    /// # Errors
    /// [`TrainError::Io`] if a directory cannot be created.
    pub fn create(parent: &Path, name: &str) -> Result<Self> {
        Self::create_at(parent, name, Timestamp::now())
    }

    fn create_at(parent: &Path, name: &str, start: Timestamp) -> Result<Self> {
        fs::create_dir_all(parent).map_err(TrainError::io("create the directory", parent))?;
        let stem = format!("{name}-{}", start.strftime("%Y%m%d-%H%M%S"));
        let mut path = parent.join(&stem);
        let mut runs = 1;
        // Creating decides who owns a name: asking first whether it is free would be a race.
        loop {
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    runs += 1;
                    path = parent.join(format!("{stem}-{runs}"));
                }
                Err(error) => return Err(TrainError::io("create the directory", &path)(error)),
            }
        }
    }

    /// Creates the directory `path` and its parents.
    ///
    /// # Errors
    /// [`TrainError::Exists`] if there is something of this name and `existing` says to refuse;
    /// [`TrainError::NotARun`] if it should be replaced but no run wrote it; [`TrainError::Io`].
    pub fn create_named(path: &Path, existing: Existing) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(TrainError::io("create the directory", parent))?;
        }
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match existing {
                Existing::Refuse => return Err(TrainError::Exists { path: path.to_owned() }),
                Existing::Replace => remove_run(path)?,
            },
            Err(error) => return Err(TrainError::io("create the directory", path)(error)),
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT)
    }

    /// Writes the resolved configuration.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn write_config(&self, config: &TrainConfig) -> Result<()> {
        let path = self.path.join(CONFIG);
        // Under its final name only when whole.
        let partial = self.path.join(PARTIAL_CONFIG);
        fs::write(&partial, format!("{MARK}\n\n{}", config.to_toml()))
            .map_err(TrainError::io("write", &partial))?;
        fs::rename(&partial, &path).map_err(TrainError::io("write", &path))
    }

    /// Starts `metrics.jsonl`.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn metrics(&self) -> Result<MetricsWriter> {
        MetricsWriter::create(&self.path.join(METRICS))
    }

    /// Writes the model to `checkpoint/`.
    ///
    /// # Errors
    /// [`TrainError::Model`] names the file.
    pub fn save(&self, model: &Model) -> Result<()> {
        Ok(model.save(&self.checkpoint())?)
    }
}

/// Removes the files of a run from a directory, and leaves every other file where it is.
fn remove_run(path: &Path) -> Result<()> {
    check_is_run(path)?;
    for file in FILES {
        let file = path.join(file);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(TrainError::io("remove", &file)(error));
            }
            _ => {}
        }
    }
    // A checkpoint directory with foreign files in it stays; the next checkpoint is written beside them.
    let checkpoint = path.join(CHECKPOINT);
    match fs::remove_dir(&checkpoint) {
        Err(error) if ![ErrorKind::NotFound, ErrorKind::DirectoryNotEmpty].contains(&error.kind()) => {
            Err(TrainError::io("remove", &checkpoint)(error))
        }
        _ => Ok(()),
    }
}

/// A directory is a run if its configuration bears the mark of one, or if it is empty.
fn check_is_run(path: &Path) -> Result<()> {
    let refuse = |reason| Err(TrainError::NotARun { path: path.to_owned(), reason });
    if !path.is_dir() {
        return refuse("it is a file");
    }
    let is_link = |path: PathBuf| path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    if is_link(path.join(CHECKPOINT)) {
        return refuse("its checkpoint is a link to another directory");
    }
    let mut entries = fs::read_dir(path).map_err(TrainError::io("read", path))?;
    match fs::read_to_string(path.join(CONFIG)) {
        Ok(text) if text.starts_with(MARK) => Ok(()),
        Ok(_) => refuse("its config.toml was not written by a run"),
        Err(_) if entries.next().is_none() => Ok(()),
        Err(_) => refuse("it has files but no readable config.toml"),
    }
}

#[cfg(test)]
mod tests;
