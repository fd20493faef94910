//! The story of a run: when it began, was interrupted, continued, met bad numbers, ended.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Result, TrainError};

/// A line of `journal.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// UTC, RFC 3339.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub event: RunEvent,
}

/// What happens to a run besides its steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// The first program began.
    Started,
    /// Another program continued.
    Resumed {
        /// Steps done by then.
        step: usize,
        /// Steps that were done after the checkpoint and are done again.
        lost_steps: usize,
    },
    /// The configuration was changed, as allowed.
    Changed {
        /// SHA-256 of the configuration of the checkpoint that the run continued from.
        from: String,
        /// Every key with its new and old value.
        keys: Vec<String>,
    },
    /// A step was not finite; its rows were skipped.
    Skipped {
        /// The step, counted from 1. It was tried again on the next rows.
        step: usize,
        /// What was not a number.
        what: String,
        /// Its value.
        value: String,
        /// Its rows, each as the number of its corpus and its own.
        rows: Vec<(usize, usize)>,
    },
    /// Too many bad steps in a row: weights and moments became those of a checkpoint again.
    RolledBack {
        /// Steps done before.
        step: usize,
        /// Steps done after.
        to: usize,
    },
    /// A signal ended the program; everything is saved.
    Interrupted {
        /// Steps done.
        step: usize,
    },
    /// Going back did not help.
    Diverged {
        /// The step that cannot be done.
        step: usize,
        /// Where the first bad value is.
        place: String,
    },
    /// All steps are done.
    Trained {
        /// Steps done.
        step: usize,
    },
}

/// Appends to `journal.jsonl`.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal, or starts it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).read(true).open(path);
        let mut journal =
            Self { path: path.to_owned(), file: file.map_err(TrainError::io("open", path))? };
        if journal.ends_within_a_line().map_err(TrainError::io("read", path))? {
            journal.append(b"\n")?;
        }
        Ok(journal)
    }

    /// Appends an event that happens now.
    pub(crate) fn write(&mut self, event: RunEvent) -> Result<()> {
        let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let line =
            serde_json::to_string(&JournalEntry { time, event }).map_err(std::io::Error::from);
        let line = line.map_err(TrainError::io("write", &self.path))?;
        self.append((line + "\n").as_bytes())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        written.map_err(TrainError::io("write", &self.path))
    }

    /// A program that was killed may have left half a line, which must not swallow the next one.
    fn ends_within_a_line(&mut self) -> std::io::Result<bool> {
        if self.file.metadata()?.len() == 0 {
            return Ok(false);
        }
        let mut last = [0];
        self.file.seek(SeekFrom::End(-1))?;
        self.file.read_exact(&mut last)?;
        Ok(last != *b"\n")
    }
}

/// Everything in a journal, oldest first; nothing if there is none. Lines that were cut short are
/// left out.
pub(crate) fn read_journal(path: &Path) -> Result<Vec<JournalEntry>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(TrainError::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        assert_eq!(read_journal(&path).unwrap(), []);
        Journal::open(&path).unwrap().write(RunEvent::Started).unwrap();
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"time\":\"2026-").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        let resumed = RunEvent::Resumed { step: 3, lost_steps: 1 };
        journal.write(resumed.clone()).unwrap();
        let events: Vec<RunEvent> =
            read_journal(&path).unwrap().into_iter().map(|entry| entry.event).collect();
        assert_eq!(events, [RunEvent::Started, resumed]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.lines().last().unwrap().contains(r#""event":"resumed","step":3,"lost_steps":1"#),
            "{text}"
        );
    }
}
