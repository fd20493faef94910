//! Files that appear under their name only when they are whole.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::directory::sync_parent;
use crate::error::FileError;
use crate::intercept::{announce, perform};
use crate::operation::Operation;
use crate::{Result, temporary};

/// A file that is being written, under a temporary name in the directory of its own.
///
/// [`commit`](Self::commit) gives it its name, replacing a file that is there. A value that is
/// dropped before leaves nothing. A process that is killed leaves the temporary file, for
/// [`remove_leftovers`](crate::remove_leftovers) to find.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl StagedFile {
    /// Starts to write the file `path`.
    ///
    /// # Errors
    /// [`FileError`], for example if the directory does not exist.
    pub fn create(path: &Path) -> Result<Self> {
        let temporary = perform(Operation::Create, path, || temporary::create_beside(path))?;
        Ok(Self { path: path.to_owned(), temporary })
    }

    /// The name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name. It is then on disk, and so is its name.
    ///
    /// # Errors
    /// [`FileError`] names the file. An old file of this name is then untouched, unless only its
    /// directory could not be synced.
    pub fn commit(self) -> Result<()> {
        let Self { path, temporary } = self;
        perform(Operation::Sync, &path, || temporary.as_file().sync_all())?;
        let rename = || temporary.persist(&path).map_err(|failed| failed.error);
        perform(Operation::Rename, &path, rename)?;
        sync_parent(&path)
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        announce(Operation::Write, &self.path)?;
        self.temporary.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.as_file_mut().flush()
    }
}

/// Replaces a file as a whole.
///
/// # Errors
/// As [`StagedFile`].
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    write_with(path, |file| file.write_all(bytes.as_ref()))
}

/// Replaces a file as a whole by what a function writes.
///
/// # Errors
/// As [`StagedFile`]; what the function returns.
pub fn write_with(
    path: &Path,
    write: impl FnOnce(&mut StagedFile) -> io::Result<()>,
) -> Result<()> {
    let mut file = StagedFile::create(path)?;
    write(&mut file).map_err(FileError::at(Operation::Write, path))?;
    file.commit()
}
