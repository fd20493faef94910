//! The directory of a run.
//!
//! ```text
//! runs/ssa-20260131-154502/
//!   run.lock         locked by the process that uses the directory
//!   config.toml      the configuration with all defaults; usable as input again
//!   metrics.jsonl    one JSON object per optimizer step
//!   journal.jsonl    start, interruptions, skipped steps, end
//!   tensorboard/     the metrics as event files
//!   checkpoints/     what a run needs to resume
//!   best/            the weights of the lowest validation loss, and best.json
//!   checkpoint/      the trained model in Hugging Face layout, and its tokenizer
//!   report.html      \
//!   summary.json     / written by the evaluation; a run with a summary is finished
//! ```

mod progress;
mod remove;
mod resume;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ssa_data::Tokenizer;
use ssa_files::{FileError, Operation};
use ssa_model::Model;

use crate::best::Best;
use crate::checkpoint::Checkpoints;
use crate::clock::now;
use crate::config::{ConfigError, TrainConfig};
use crate::journal::{JournalEntry, RunEvent, read_journal};
use crate::lock::{LOCK, RunLock};
use crate::{Result, TrainError};

pub use progress::Progress;
pub use resume::ResumePoint;

const CONFIG: &str = "config.toml";
const CHECKPOINT: &str = "checkpoint";
const SUMMARY: &str = "summary.json";
const REPORT: &str = "report.html";

/// First line of a run's `config.toml`. It marks the directory as a run, which may be overwritten.
const MARK: &str = "# The resolved configuration of a training run of `ssa`.";

/// What to do with an existing run directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Remove the files of the run in it, and nothing else.
    Replace,
}

/// The directory of a run, locked against other processes until this value is dropped.
///
/// This type is on top of everything in the directory: checkpoints, logs and weights handle their
/// own files and do not depend on it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    lock: RunLock,
}

impl RunDir {
    /// Creates `<parent>/<name>-<UTC time>`, with `-2`, `-3`, ... appended if runs start in the
    /// same second.
    ///
    /// # Errors
    /// [`TrainError::File`] if a directory cannot be created.
    pub fn create(parent: &Path, name: &str) -> Result<Self> {
        Self::create_at(parent, name, now())
    }

    fn create_at(parent: &Path, name: &str, start: Timestamp) -> Result<Self> {
        ssa_files::create_directories(parent)?;
        let stem = format!("{name}-{}", start.strftime("%Y%m%d-%H%M%S"));
        let mut path = parent.join(&stem);
        let mut runs = 1;
        // Create first instead of checking for existence, which would be a race.
        loop {
            match ssa_files::create_directory(&path) {
                Err(error) if error.source.kind() == ErrorKind::AlreadyExists => {
                    runs += 1;
                    path = parent.join(format!("{stem}-{runs}"));
                }
                created => {
                    created?;
                    return Self::lock(&path);
                }
            }
        }
    }

    /// Creates the directory `path` and its parents, or uses an empty one, which a run killed right
    /// after its start can leave.
    ///
    /// # Errors
    /// [`TrainError::Exists`] or [`TrainError::Finished`] if the path exists and `existing` is
    /// [`Existing::Refuse`];
    /// [`TrainError::NotARun`] if it should be replaced but is not a run directory;
    /// [`TrainError::Locked`]; [`TrainError::File`].
    pub fn create_named(path: &Path, existing: Existing) -> Result<Self> {
        // Check before taking the lock, which writes a file, and again after it, when no other
        // process writes.
        Self::check_named(path, existing)?;
        ssa_files::create_directories(path)?;
        let run = Self::lock(path)?;
        Self::check_named(path, existing)?;
        ssa_files::remove_leftovers(path)?;
        if existing == Existing::Replace {
            remove::remove_run(path)?;
        }
        Ok(run)
    }

    /// Whether [`create_named`](Self::create_named) would use this path. Takes no lock and changes
    /// nothing.
    ///
    /// # Errors
    /// As [`create_named`](Self::create_named).
    pub fn check_named(path: &Path, existing: Existing) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        match existing {
            Existing::Refuse if is_vacant(path)? => Ok(()),
            Existing::Refuse if Self::summary_of(path).exists() => {
                Err(TrainError::Finished { path: path.to_owned() })
            }
            Existing::Refuse => {
                remove::check_is_run(path)?;
                Err(TrainError::Exists { path: path.to_owned() })
            }
            Existing::Replace => remove::check_is_run(path),
        }
    }

    /// Opens the directory of a run to resume it, and removes the remains of a killed process.
    ///
    /// # Errors
    /// [`TrainError::NoRun`] if there is no run; [`TrainError::Locked`]; [`TrainError::File`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::config_path_of(path)?;
        let run = Self::lock(path)?;
        ssa_files::remove_leftovers(path)?;
        run.checkpoints().remove_partial()?;
        Ok(run)
    }

    /// Returns the path of the configuration in a run directory, which is neither locked nor
    /// changed.
    ///
    /// # Errors
    /// [`TrainError::NoRun`] if there is no run; [`TrainError::File`].
    pub fn config_path_of(path: &Path) -> Result<PathBuf> {
        let refuse = |reason| Err(TrainError::NoRun { path: path.to_owned(), reason });
        if !path.is_dir() {
            return refuse(if path.exists() { "not a directory" } else { "no such directory" });
        }
        let config = path.join(CONFIG);
        match fs::read_to_string(&config) {
            Ok(text) if text.starts_with(MARK) => Ok(config),
            Ok(_) if path.join("state.json").exists() => {
                refuse("it is a checkpoint of a run, which is two directories above")
            }
            Ok(_) => refuse("its config.toml was not written by a run"),
            Err(error) if error.kind() == ErrorKind::NotFound => refuse("it has no config.toml"),
            Err(error) => Err(FileError::at(Operation::Read, &config)(error).into()),
        }
    }

    /// The working directory in which a run was started, the base of relative paths in its
    /// configuration; empty if unknown. `path` is the directory of the run or of a model in it.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn working_directory_of(path: &Path) -> Result<PathBuf> {
        let started = |entry: JournalEntry| match entry.event {
            RunEvent::Started { directory } => directory.map(PathBuf::from),
            _ => None,
        };
        // RUN, RUN/checkpoint or RUN/checkpoints/step-N.
        for directory in path.ancestors().take(3) {
            if let Some(found) = read_journal(directory)?.into_iter().find_map(started) {
                return Ok(found);
            }
        }
        Ok(PathBuf::new())
    }

    /// Opens the newest unfinished run in `parent` with exactly this configuration, if there is
    /// one. Skips runs in use by another process, and directories that are not runs.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn open_unfinished(parent: &Path, config: &TrainConfig) -> Result<Option<Self>> {
        let prefix = format!("{}-", config.run.name);
        let error = || FileError::at(Operation::Read, parent);
        let entries = match fs::read_dir(parent) {
            Err(reason) if reason.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(error())?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.map_err(error())?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                paths.push(entry.path());
            }
        }
        // Names end with the time.
        paths.sort();
        let is_same = |path: &PathBuf| {
            Self::holds_unfinished_run(path)
                && TrainConfig::load(&path.join(CONFIG), &[]).is_ok_and(|found| found == *config)
        };
        for path in paths.into_iter().rev().filter(is_same) {
            match Self::open(&path) {
                Err(TrainError::Locked { .. }) => {}
                run => return run.map(Some),
            }
        }
        Ok(None)
    }

    /// The summary of the run in a directory. A run that has one is finished.
    pub fn summary_of(path: &Path) -> PathBuf {
        path.join(SUMMARY)
    }

    /// Whether a directory holds an unfinished run.
    pub fn holds_unfinished_run(path: &Path) -> bool {
        let started =
            fs::read_to_string(path.join(CONFIG)).is_ok_and(|text| text.starts_with(MARK));
        started && !Self::summary_of(path).exists()
    }

    fn lock(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), lock: RunLock::take(path)? })
    }

    /// Checks that the directory and its lock still exist. Call it before writing to the directory
    /// by its path.
    ///
    /// # Errors
    /// [`TrainError::LockLost`].
    pub fn check_lock(&self) -> Result<()> {
        self.lock.check()
    }

    /// The lock, for background writers.
    pub(crate) fn shared_lock(&self) -> RunLock {
        self.lock.clone()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the final model.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT)
    }

    /// The checkpoints to resume from.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of_run(&self.path)
    }

    /// Removes summary and report, to continue training a finished run.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn reopen(&self) -> Result<()> {
        for file in [SUMMARY, REPORT] {
            ssa_files::remove_file(&self.path.join(file))?;
        }
        Ok(())
    }

    /// The path of the configuration.
    pub fn config_path(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and the problem.
    pub fn config(&self) -> Result<TrainConfig, ConfigError> {
        TrainConfig::load(&self.config_path(), &[])
    }

    /// Writes the resolved configuration.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn write_config(&self, config: &TrainConfig) -> Result<()> {
        let text = format!("{MARK}\n\n{}", config.to_toml());
        Ok(ssa_files::write(&self.path.join(CONFIG), text)?)
    }

    /// The journal of the run, oldest entry first.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn journal(&self) -> Result<Vec<JournalEntry>> {
        read_journal(&self.path)
    }

    /// The best weights so far; `None` before the first validation.
    ///
    /// # Errors
    /// [`TrainError::File`] names the file that cannot be read or parsed.
    pub fn best(&self) -> Result<Option<Best>> {
        Best::load(&self.path)
    }

    /// Saves `model`, its tokenizer and losses as the best weights, replacing the previous ones.
    ///
    /// # Errors
    /// [`TrainError::LockLost`]; [`TrainError::Model`], [`TrainError::Data`] or
    /// [`TrainError::File`] name the file; the previous weights are kept.
    pub fn save_best(&self, model: &Model, tokenizer: &Tokenizer, best: &Best) -> Result<()> {
        self.check_lock()?;
        best.save(&self.path, model, tokenizer)
    }

    /// Writes the model and the files of its tokenizer to `checkpoint/`.
    ///
    /// # Errors
    /// [`TrainError::LockLost`]; [`TrainError::Model`], [`TrainError::Data`] or
    /// [`TrainError::File`] name the file.
    pub fn save(&self, model: &Model, tokenizer: &Tokenizer) -> Result<()> {
        self.check_lock()?;
        ssa_files::create_directories(&self.checkpoint())?;
        ssa_files::remove_leftovers(&self.checkpoint())?;
        tokenizer.copy_to(&self.checkpoint())?;
        Ok(model.save(&self.checkpoint())?)
    }
}

/// Whether no run has started in a directory: it is empty, or holds only the remains of a run
/// killed right after its start.
fn is_vacant(path: &Path) -> Result<bool> {
    if !path.is_dir() {
        return Ok(false);
    }
    let error = || FileError::at(Operation::Read, path);
    for entry in fs::read_dir(path).map_err(error())? {
        let name = entry.map_err(error())?.file_name();
        if name != LOCK && !name.to_str().is_some_and(ssa_files::is_temporary) {
            return Ok(false);
        }
    }
    Ok(true)
}
