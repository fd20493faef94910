//! The history of a run: start, interruptions, resumes, skipped steps, end.

use std::path::Path;

use serde::{Deserialize, Serialize};
use ssa_files::JsonLines;

use crate::Result;
use crate::clock::now;

/// Name of the journal in a run directory.
pub(crate) const JOURNAL: &str = "journal.jsonl";

/// A line of `journal.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// UTC, RFC 3339.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub event: RunEvent,
}

/// An event in a run other than a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// The first process started.
    Started {
        /// Its working directory, the base of relative paths in the configuration; `None` if it is
        /// not UTF-8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        directory: Option<String>,
    },
    /// Another process resumed the run.
    Resumed {
        /// Steps done before.
        step: usize,
        /// Steps after the checkpoint that are repeated.
        lost_steps: usize,
    },
    /// The configuration was changed with permission.
    Changed {
        /// SHA-256 of the configuration in the checkpoint that the run resumed from.
        from: String,
        /// Every key with its new and old value.
        keys: Vec<String>,
    },
    /// The loss or gradient of a step was not finite; its rows were skipped.
    Skipped {
        /// The step, counted from 1. It was retried on the next rows.
        step: usize,
        /// What was not finite.
        what: String,
        /// Its value.
        value: String,
        /// Its rows, each as corpus number and row number.
        rows: Vec<(usize, usize)>,
    },
    /// Too many such steps in a row: weights and moments were restored from a checkpoint.
    RolledBack {
        /// Steps done before.
        step: usize,
        /// Steps done after.
        to: usize,
    },
    /// A signal ended the process after everything was saved.
    Interrupted {
        /// Steps done.
        step: usize,
    },
    /// The rollback did not help.
    Diverged {
        /// The failing step.
        step: usize,
        /// The location of the first bad value.
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
    lines: JsonLines,
}

impl Journal {
    /// Opens or creates the journal of a run.
    pub(crate) fn open(run: &Path) -> Result<Self> {
        Ok(Self { lines: JsonLines::open(&run.join(JOURNAL))? })
    }

    /// Appends an event with the current time. It is on disk when this returns.
    pub(crate) fn write(&mut self, event: RunEvent) -> Result<()> {
        let time = now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.lines.append(&JournalEntry { time, event })?;
        Ok(self.lines.sync()?)
    }
}

/// Reads the journal of a run, oldest entry first; empty if there is none. Truncated lines are
/// skipped.
pub(crate) fn read_journal(run: &Path) -> Result<Vec<JournalEntry>> {
    let lines = ssa_files::read_lines(&run.join(JOURNAL))?;
    Ok(lines.text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn half_a_line_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let (run, path) = (directory.path(), directory.path().join(JOURNAL));
        assert_eq!(read_journal(run).unwrap(), []);
        let started = RunEvent::Started { directory: None };
        Journal::open(run).unwrap().write(started.clone()).unwrap();
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"time\":\"2026-").unwrap();
        let mut journal = Journal::open(run).unwrap();
        let resumed = RunEvent::Resumed { step: 3, lost_steps: 1 };
        journal.write(resumed.clone()).unwrap();
        let events: Vec<RunEvent> =
            read_journal(run).unwrap().into_iter().map(|entry| entry.event).collect();
        assert_eq!(events, [started, resumed]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.lines().last().unwrap().contains(r#""event":"resumed","step":3,"lost_steps":1"#),
            "{text}"
        );
    }

    #[test]
    fn entries_of_older_versions_are_read() {
        let entry: JournalEntry =
            serde_json::from_str(r#"{"time":"2026-01-31T15:45:02Z","event":"started"}"#).unwrap();
        assert_eq!(entry.event, RunEvent::Started { directory: None });
    }
}
