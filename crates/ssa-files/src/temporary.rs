//! The names of files that do not have their own yet, and the files that killed writers leave.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

use crate::Result;
use crate::directory::{entries, remove_file};
use crate::error::FileError;
use crate::operation::Operation;

/// Every temporary name is this and [`RANDOM_CHARACTERS`] random letters and digits. A name that is
/// taken is never used.
const PREFIX: &str = ".ssa-partial-";
const RANDOM_CHARACTERS: usize = 12;

/// Finds a temporary name that is free.
pub(crate) fn name() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix("").rand_bytes(RANDOM_CHARACTERS);
    builder
}

/// Creates a file under a temporary name in the directory of `path`. It is locked as long as its
/// writer lives.
pub(crate) fn create_beside(path: &Path) -> io::Result<NamedTempFile> {
    name().make_in(path.parent().unwrap_or(Path::new("")), create_locked)
}

/// [`remove_leftovers`] may come between the creation and the lock: then another name is tried.
fn create_locked(path: &Path) -> io::Result<File> {
    let file = File::create_new(path)?;
    let is_ours = match file.try_lock() {
        Ok(()) => fs::exists(path)?,
        Err(TryLockError::WouldBlock) => false,
        // A file system without locks: nobody removes the file.
        Err(TryLockError::Error(_)) => true,
    };
    if is_ours { Ok(file) } else { Err(ErrorKind::AlreadyExists.into()) }
}

/// Whether a name is one that a [`StagedFile`](crate::StagedFile) has before it gets its own.
pub fn is_temporary(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|random| {
        random.len() == RANDOM_CHARACTERS && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Removes the temporary files in a directory whose writers were killed. Those of living writers
/// are locked and stay; where the file system has no locks, all stay. A directory that does not
/// exist has none.
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
        // Locked until it is removed, so that no writer can take it for its own.
        Ok(file) if file.try_lock().is_ok() => remove_file(path),
        Ok(_) => Ok(()),
        // A link has such a name for an instant only, so its writer is gone.
        Err(_) if is_link() => remove_file(path),
        // The writer of the file is done.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::at(Operation::Read, path)(error)),
    }
}
