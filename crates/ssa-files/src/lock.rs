//! Locks between processes.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::Result;
use crate::error::FileError;
use crate::intercept::perform;
use crate::operation::Operation;

/// A lock on a file, held until the value is dropped.
///
/// The operating system holds the lock, so it always ends with the process, and a leftover file
/// means nothing. The process ID in the file tells users who holds the lock. On a file system
/// without locks every process gets one.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

/// Why a lock cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{} is locked by process {holder}", path.display())]
    Held {
        /// The locked file.
        path: PathBuf,
        /// Process ID in the file.
        holder: String,
    },
    /// The file cannot be opened or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Lock {
    /// Locks a file, which is created if it does not exist.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(path: &Path) -> Result<Self, LockError> {
        loop {
            let mut options = File::options();
            let options = options.create(true).read(true).write(true).truncate(false);
            let mut file = perform(Operation::Create, path, || options.open(path))?;
            match file.try_lock() {
                // An error means that the file system has no locks.
                Ok(()) | Err(TryLockError::Error(_)) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held { path: path.to_owned(), holder: holder(file) });
                }
            }
            // The previous holder may have removed the file after it was opened here.
            if !is_name_of(path, &file).map_err(FileError::at(Operation::Lock, path))? {
                continue;
            }
            perform(Operation::Write, path, || {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())
            })?;
            return Ok(Self { path: path.to_owned(), file });
        }
    }

    /// The locked file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still names the locked file. If not, it was removed or replaced, and
    /// another process may hold a lock on the same path.
    ///
    /// # Errors
    /// [`FileError`] names the file.
    pub fn is_intact(&self) -> Result<bool> {
        is_name_of(&self.path, &self.file).map_err(FileError::at(Operation::Lock, &self.path))
    }
}

impl Drop for Lock {
    /// Closing the file is not enough if a child process holds a copy of it, even if only until it
    /// calls exec.
    fn drop(&mut self) {
        // If unlocking fails, the end of the process unlocks the file.
        let _ = self.file.unlock();
    }
}

/// The ID of the process that holds a lock, from its file. It is only for messages, so an
/// unreadable file is not an error.
fn holder(mut file: File) -> String {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    if text.trim().is_empty() { "unknown".to_owned() } else { text.trim().to_owned() }
}

/// Whether a path names an open file.
fn is_name_of(path: &Path, file: &File) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(is_same(&found, &file.metadata()?)),
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn is_same(left: &fs::Metadata, right: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (left.dev(), left.ino()) == (right.dev(), right.ino())
}

/// On other systems an open file cannot be replaced.
#[cfg(not(unix))]
fn is_same(_left: &fs::Metadata, _right: &fs::Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_holder_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::take(&path).unwrap();
        let message = Lock::take(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(lock);
        Lock::take(&path).unwrap();
    }

    #[test]
    fn a_copy_of_the_file_does_not_extend_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::take(&path).unwrap();
        let _inherited = lock.file.try_clone().unwrap();
        drop(lock);
        Lock::take(&path).unwrap();
    }

    #[test]
    fn the_file_of_a_dead_process_is_not_a_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        fs::write(&path, "4194304999\n").unwrap();
        let _lock = Lock::take(&path).unwrap();
        let holder = fs::read_to_string(&path).unwrap();
        assert_eq!(holder, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_not_intact() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::take(&path).unwrap();
        assert!(lock.is_intact().unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!lock.is_intact().unwrap());
        let second = Lock::take(&path).unwrap();
        assert!(!lock.is_intact().unwrap() && second.is_intact().unwrap());
    }
}
