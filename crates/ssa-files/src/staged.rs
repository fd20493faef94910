//! Atomic file writes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::directory::sync_parent;
use crate::error::FileError;
use crate::intercept::{announce, perform};
use crate::operation::Operation;
use crate::{Result, temporary};

/// A file being written under a temporary name in its final directory.
///
/// [`commit`](Self::commit) renames it to its final name and replaces an existing file. Dropping
/// the value earlier removes the temporary file. A killed process leaves it for
/// [`remove_leftovers`](crate::remove_leftovers).
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl StagedFile {
    /// Starts writing the file `path`.
    ///
    /// # Errors
    /// [`FileError`], for example if the directory does not exist.
    pub fn create(path: &Path) -> Result<Self> {
        let temporary = perform(Operation::Create, path, || temporary::create_sibling(path))?;
        Ok(Self { path: path.to_owned(), temporary })
    }

    /// The final path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the file to its final name. File and name are then on disk.
    ///
    /// # Errors
    /// [`FileError`] names the file. An existing file of this name is then unchanged, unless only
    /// the sync of the directory failed.
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

/// Replaces a file atomically.
///
/// # Errors
/// Same as [`StagedFile`].
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    write_with(path, |file| file.write_all(bytes.as_ref()))
}

/// Replaces a file atomically with the output of a function.
///
/// # Errors
/// Same as [`StagedFile`], and any error of the function.
pub fn write_with(
    path: &Path,
    write: impl FnOnce(&mut StagedFile) -> io::Result<()>,
) -> Result<()> {
    let mut file = StagedFile::create(path)?;
    write(&mut file).map_err(FileError::at(Operation::Write, path))?;
    file.commit()
}
