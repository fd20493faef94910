//! JSON files, and logs with one JSON value per line.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::Serialize;

use crate::Result;
use crate::append::AppendFile;
use crate::error::FileError;
use crate::operation::Operation;
use crate::staged::write;

/// Replaces a file atomically with a value as indented JSON.
///
/// # Errors
/// [`FileError`] names the file.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from);
    write(path, text.map_err(FileError::at(Operation::Write, path))? + "\n")
}

/// A log with one JSON value per line.
#[derive(Debug)]
pub struct JsonLines {
    file: AppendFile,
}

impl JsonLines {
    /// Opens or creates a log. An unfinished line of a killed process is ended, so that it does not
    /// merge with the next one.
    ///
    /// # Errors
    /// [`FileError`] names the file.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = AppendFile::open(path)?;
        let last = file.last_byte().map_err(FileError::at(Operation::Read, path))?;
        if last.is_some_and(|byte| byte != b'\n') {
            file.append(b"\n")?;
        }
        Ok(Self { file })
    }

    /// Opens or creates a log and truncates it.
    ///
    /// # Errors
    /// [`FileError`] names the file.
    pub fn open_cut(path: &Path, bytes: u64) -> Result<Self> {
        let mut file = AppendFile::open(path)?;
        file.truncate(bytes)?;
        Ok(Self { file })
    }

    /// Appends a value as a line.
    ///
    /// # Errors
    /// [`FileError`] names the file.
    pub fn append(&mut self, value: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(value).map_err(io::Error::from);
        let line = line.map_err(FileError::at(Operation::Write, self.file.path()))?;
        self.file.append((line + "\n").as_bytes())
    }

    /// Waits until all lines are on disk.
    ///
    /// # Errors
    /// [`FileError`] names the file.
    pub fn sync(&self) -> Result<()> {
        self.file.sync()
    }
}

/// The content of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// The complete lines, each with its newline.
    pub text: String,
    /// Whether an unfinished line of a killed process follows.
    pub has_unfinished: bool,
}

/// Reads a log; a missing file is empty.
///
/// # Errors
/// [`FileError`] names the file.
pub fn read_lines(path: &Path) -> Result<Lines> {
    let read = || {
        let mut bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => vec![],
            bytes => bytes?,
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        let has_unfinished = whole < bytes.len();
        // Done first, because a line can be truncated within a character.
        bytes.truncate(whole);
        let text = String::from_utf8(bytes)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        Ok(Lines { text, has_unfinished })
    };
    read().map_err(FileError::at(Operation::Read, path))
}
