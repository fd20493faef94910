//! One process per run directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ssa_files::{Lock, LockError};

use crate::{Result, TrainError};

/// Name of the lock file. It stays in the directory.
pub(crate) const LOCK: &str = "run.lock";

/// The lock of a run directory, held until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct RunLock {
    directory: PathBuf,
    lock: Arc<Lock>,
}

impl RunLock {
    /// Locks a directory.
    ///
    /// # Errors
    /// [`TrainError::Locked`] names the process that holds it; [`TrainError::File`].
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        match Lock::take(&directory.join(LOCK)) {
            Ok(lock) => Ok(Self { directory: directory.to_owned(), lock: Arc::new(lock) }),
            Err(LockError::Held { path, holder }) => {
                Err(TrainError::Locked { directory: directory.to_owned(), file: path, holder })
            }
            Err(LockError::File(error)) => Err(error.into()),
        }
    }

    /// Checks that the directory and the lock file still exist. Call it before every write: without
    /// the lock another process may write to the directory.
    ///
    /// # Errors
    /// [`TrainError::LockLost`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.lock.is_intact()? {
            return Ok(());
        }
        Err(TrainError::LockLost {
            directory: self.directory.clone(),
            file: self.lock.path().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_has_one_holder_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let lock = RunLock::take(directory.path()).unwrap();
        let message = RunLock::take(directory.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        assert!(message.contains("run.lock"), "{message}");
        drop(lock);
        RunLock::take(directory.path()).unwrap();
    }

    #[test]
    fn a_lock_that_was_removed_is_detected() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("run");
        fs::create_dir(&directory).unwrap();
        let lock = RunLock::take(&directory).unwrap();
        lock.check().unwrap();
        fs::remove_file(directory.join(LOCK)).unwrap();
        let _second = RunLock::take(&directory).unwrap();
        assert!(matches!(lock.check(), Err(TrainError::LockLost { .. })));
        let lock = RunLock::take(parent.path()).unwrap();
        fs::remove_dir_all(parent.path()).unwrap();
        let message = lock.check().unwrap_err().to_string();
        assert!(message.contains("run.lock was removed or replaced"), "{message}");
    }
}
