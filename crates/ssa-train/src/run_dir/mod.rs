//! The directory of a run.
//!
//! ```text
//! runs/ssa-20260131-154502/
//!   run.lock         held by the program that works here
//!   config.toml      the configuration with all defaults; usable as input again
//!   metrics.jsonl    one JSON object per optimiser step
//!   journal.jsonl    beginning, interruptions, bad steps, end
//!   tensorboard/     the metrics as event files
//!   checkpoints/     what a run needs to go on
//!   best/            the weights of the lowest validation loss, and best.json
//!   checkpoint/      the trained model in Hugging Face layout, and its tokenizer
//!   report.html      \
//!   summary.json     / what evaluation adds; with the summary the run is finished
//! ```

mod remove;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ssa_data::Tokenizer;
use ssa_model::Model;
use ssa_model::checkpoint::replace_file;

use crate::checkpoint::Checkpoints;
use crate::config::TrainConfig;
use crate::durable::{copy_tokenizer, sync_names};
use crate::journal::{JournalEntry, read_journal};
use crate::lock::{LOCK, RunLock};
use crate::metrics::{KeptSteps, MetricsWriter};
use crate::tensorboard::EventWriter;
use crate::{ConfigError, Result, TrainError};

pub(crate) use remove::{remove_files, remove_if_empty, remove_model_files};

const CONFIG: &str = "config.toml";
const PARTIAL_CONFIG: &str = "config.toml.tmp";
const METRICS: &str = "metrics.jsonl";
const JOURNAL: &str = "journal.jsonl";
const TENSORBOARD: &str = "tensorboard";
const CHECKPOINT: &str = "checkpoint";
const SUMMARY: &str = "summary.json";
const REPORT: &str = "report.html";

/// First line of a run's `config.toml`: by it a directory is known to hold a run that may be
/// overwritten.
const MARK: &str = "# The resolved configuration of a training run of `ssa`.";

/// What to do with a run directory that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse: nothing is overwritten unasked.
    Refuse,
    /// Remove the files of the run in it, and nothing else.
    Replace,
}

/// The directory of a run, ready to be written to and locked against other programs until this
/// value is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: RunLock,
}

impl RunDir {
    /// Creates `<parent>/<name>-<UTC time>`, with `-2`, `-3`, ... appended if runs start in the
    /// same second.
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
                Ok(()) => return Self::lock(&path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    runs += 1;
                    path = parent.join(format!("{stem}-{runs}"));
                }
                Err(error) => return Err(TrainError::io("create the directory", &path)(error)),
            }
        }
    }

    /// Creates the directory `path` and its parents. An empty one, such as a run leaves that is
    /// killed in its first instant, counts as none.
    ///
    /// # Errors
    /// [`TrainError::Exists`] if there is something of this name and `existing` says to refuse;
    /// [`TrainError::NotARun`] if it should be replaced but no run wrote it;
    /// [`TrainError::Locked`]; [`TrainError::Io`].
    pub fn create_named(path: &Path, existing: Existing) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(TrainError::io("create the directory", parent))?;
        }
        match fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(TrainError::io("create the directory", path)(error));
            }
            _ => {}
        }
        let check = || match existing {
            Existing::Refuse if is_vacant(path)? => Ok(()),
            Existing::Refuse => Err(TrainError::Exists { path: path.to_owned() }),
            Existing::Replace => remove::check_is_run(path),
        };
        // Before the lock, which writes a file; and behind it, since only then nobody else writes.
        check()?;
        let run = Self::lock(path)?;
        check()?;
        if existing == Existing::Replace {
            remove::remove_run(path)?;
        }
        Ok(run)
    }

    /// Opens the directory of a run that is to be continued, and clears away what an interrupted
    /// save left there.
    ///
    /// # Errors
    /// [`TrainError::NoRun`] if no run was begun there; [`TrainError::Locked`]; [`TrainError::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::config_path_of(path)?;
        let run = Self::lock(path)?;
        run.checkpoints().remove_partial()?;
        Ok(run)
    }

    /// The configuration of the run in a directory, which is neither locked nor changed.
    ///
    /// # Errors
    /// [`TrainError::NoRun`] if no run was begun there; [`TrainError::Io`].
    pub fn config_path_of(path: &Path) -> Result<PathBuf> {
        let refuse = |reason| Err(TrainError::NoRun { path: path.to_owned(), reason });
        if !path.is_dir() {
            return refuse("there is no such directory");
        }
        let config = path.join(CONFIG);
        match fs::read_to_string(&config) {
            Ok(text) if text.starts_with(MARK) => Ok(config),
            Ok(_) => refuse("its config.toml was not written by a run"),
            Err(error) if error.kind() == ErrorKind::NotFound => refuse("it has no config.toml"),
            Err(error) => Err(TrainError::io("read", &config)(error)),
        }
    }

    /// Opens the newest run of `parent` that is not finished and has exactly this configuration;
    /// none if there is none. Runs that another program works on, and directories that no run
    /// wrote, are passed by.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn open_unfinished(parent: &Path, config: &TrainConfig) -> Result<Option<Self>> {
        let prefix = format!("{}-", config.run.name);
        let error = || TrainError::io("read", parent);
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

    /// Whether a directory holds a run that was begun and is not finished.
    pub fn holds_unfinished_run(path: &Path) -> bool {
        let begun = fs::read_to_string(path.join(CONFIG)).is_ok_and(|text| text.starts_with(MARK));
        begun && !path.join(SUMMARY).exists()
    }

    fn lock(path: &Path) -> Result<Self> {
        // The directory may be new, and a run must not be lost with its name.
        path.parent().into_iter().for_each(sync_names);
        Ok(Self { path: path.to_owned(), _lock: RunLock::take(path)? })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT)
    }

    /// The checkpoints to continue from.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of_run(&self.path)
    }

    /// Whether the run has ended with its summary.
    pub fn is_finished(&self) -> bool {
        self.path.join(SUMMARY).exists()
    }

    /// Removes summary and report: a finished run is to be trained further.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn reopen(&self) -> Result<()> {
        [SUMMARY, REPORT].iter().try_for_each(|file| remove::remove_file(&self.path.join(file)))
    }

    /// The file of the configuration.
    pub fn config_path(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and what is wrong with it.
    pub fn config(&self) -> Result<TrainConfig, ConfigError> {
        TrainConfig::load(&self.config_path(), &[])
    }

    /// Writes the resolved configuration.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn write_config(&self, config: &TrainConfig) -> Result<()> {
        let text = format!("{MARK}\n\n{}", config.to_toml());
        replace_file(&self.path.join(CONFIG), |file| file.write_all(text.as_bytes()))
            .map_err(TrainError::with_remedy)
    }

    /// Opens `metrics.jsonl` of a run that has done `done` steps, or starts it.
    ///
    /// # Errors
    /// As [`MetricsWriter::resume`].
    pub fn metrics(&self, done: usize) -> Result<(MetricsWriter, KeptSteps)> {
        MetricsWriter::resume(&self.path.join(METRICS), done)
    }

    /// What has happened to the run, oldest first.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn journal(&self) -> Result<Vec<JournalEntry>> {
        read_journal(&self.journal_path())
    }

    pub(crate) fn journal_path(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Starts a TensorBoard event file in `tensorboard/` for a session whose first step, counted
    /// from 1, is `first_step`.
    ///
    /// # Errors
    /// [`TrainError::Io`] names the file.
    pub fn events(&self, first_step: usize) -> Result<EventWriter> {
        EventWriter::create(&self.path.join(TENSORBOARD), first_step)
    }

    /// Writes the model and the files of its tokenizer to `checkpoint/`.
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::Data`] names the file.
    pub fn save(&self, model: &Model, tokenizer: &Tokenizer) -> Result<()> {
        copy_tokenizer(tokenizer, &self.checkpoint())?;
        model.save(&self.checkpoint()).map_err(TrainError::with_remedy)
    }
}

/// A directory in which no run has begun: it is empty, but for what one that was killed at once
/// leaves.
fn is_vacant(path: &Path) -> Result<bool> {
    if !path.is_dir() {
        return Ok(false);
    }
    let error = || TrainError::io("read", path);
    for entry in fs::read_dir(path).map_err(error())? {
        let name = entry.map_err(error())?.file_name();
        if ![LOCK, PARTIAL_CONFIG].iter().any(|ours| name == *ours) {
            return Ok(false);
        }
    }
    Ok(true)
}
