//! Append-only files of records.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::Result;
use crate::directory::sync_parent;
use crate::intercept::perform;
use crate::operation::Operation;

/// An append-only file. Every record reaches the operating system before the call returns, so
/// readers can follow and a crash of the process loses nothing. After [`sync`](Self::sync) the
/// records survive a power failure.
#[derive(Debug)]
pub struct AppendFile {
    path: PathBuf,
    file: File,
}

impl AppendFile {
    /// Opens or creates a file.
    ///
    /// # Errors
    /// [`FileError`](crate::FileError) names the file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, File::options().create(true))
    }

    /// Creates a file.
    ///
    /// # Errors
    /// Same as [`open`](Self::open); of kind [`io::ErrorKind::AlreadyExists`] if the file exists.
    pub fn create_new(path: &Path) -> Result<Self> {
        Self::open_with(path, File::options().create_new(true))
    }

    fn open_with(path: &Path, options: &mut std::fs::OpenOptions) -> Result<Self> {
        let open = || options.append(true).read(true).open(path);
        let file = perform(Operation::Create, path, open)?;
        sync_parent(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`FileError`](crate::FileError), for example on a full disk; the file may then end with a
    /// partial record.
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        perform(Operation::Write, &self.path, || self.file.write_all(record))
    }

    /// Truncates the file.
    ///
    /// # Errors
    /// [`FileError`](crate::FileError) names the file.
    pub fn truncate(&mut self, bytes: u64) -> Result<()> {
        perform(Operation::Write, &self.path, || self.file.set_len(bytes))
    }

    /// Waits until all records are on disk.
    ///
    /// # Errors
    /// [`FileError`](crate::FileError) names the file.
    pub fn sync(&self) -> Result<()> {
        perform(Operation::Sync, &self.path, || self.file.sync_data())
    }

    /// The last byte, if there is one.
    pub(crate) fn last_byte(&mut self) -> io::Result<Option<u8>> {
        if self.file.metadata()?.len() == 0 {
            return Ok(None);
        }
        let mut last = [0];
        self.file.seek(SeekFrom::End(-1))?;
        self.file.read_exact(&mut last)?;
        Ok(Some(last[0]))
    }
}
