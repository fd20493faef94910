//! Temporary file names, and leftovers of killed writers.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

use crate::Result;
use crate::directory::{entries, remove_file};
use crate::error::FileError;
use crate::operation::Operation;

/// Every temporary name is this prefix and [`RANDOM_CHARACTERS`] random letters and digits. An
/// existing name is never used.
const PREFIX: &str = ".ssa-partial-";
const RANDOM_CHARACTERS: usize = 12;

/// Finds an unused temporary name.
pub(crate) fn name() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix("").rand_bytes(RANDOM_CHARACTERS);
    builder
}

/// Creates a file with a temporary name in the directory of `path`. It stays locked while its
/// writer lives.
pub(crate) fn create_sibling(path: &Path) -> io::Result<NamedTempFile> {
    name().make_in(path.parent().unwrap_or(Path::new("")), create_locked)
}

/// [`remove_leftovers`] may come between the creation and the lock: then try another name.
fn create_locked(path: &Path) -> io::Result<File> {
    let file = File::create_new(path)?;
    let is_ours = match file.try_lock() {
        Ok(()) => fs::exists(path)?,
        Err(TryLockError::WouldBlock) => false,
        // On a file system without locks, nothing removes the file.
        Err(TryLockError::Error(_)) => true,
    };
    if is_ours { Ok(file) } else { Err(ErrorKind::AlreadyExists.into()) }
}

/// Whether a name is a temporary name of a [`StagedFile`](crate::StagedFile).
pub fn is_temporary(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|random| {
        random.len() == RANDOM_CHARACTERS && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Removes temporary files of killed writers in a directory. Files of living writers are locked and
/// stay; on a file system without locks, all stay. A missing directory has none.
///
/// # Errors
/// [`FileError`] names the file.
pub fn remove_leftovers(directory: &Path) -> Result<()> {
    for name in entries(directory)? {
        if name.to_str().is_some_and(is_temporary) {
            remove_if_dead(&directory.join(&name))?;
        }
    }
    Ok(())
}

fn remove_if_dead(path: &Path) -> Result<()> {
    let is_link = || fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    match File::options().read(true).write(true).open(path) {
        // The lock is held until the removal, so that no writer can use the file.
        Ok(file) if file.try_lock().is_ok() => remove_file(path),
        Ok(_) => Ok(()),
        // A link has such a name only briefly, so its writer is dead.
        Err(_) if is_link() => remove_file(path),
        // The writer has finished.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::at(Operation::Read, path)(error)),
    }
}
