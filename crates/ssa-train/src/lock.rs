//! One run per directory.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::{Result, TrainError};

/// Name of the file that is locked. It stays in the directory: removing it would let a third
/// process lock a new file while a second still waits on the old one.
pub(crate) const LOCK: &str = "run.lock";

/// The right to write to a run directory, until it is dropped.
///
/// The lock is the operating system's, so it ends with the process however that ends; the number in
/// the file only tells people who holds it.
#[derive(Debug)]
pub(crate) struct RunLock {
    file: File,
}

impl RunLock {
    /// Takes the lock of a directory.
    ///
    /// # Errors
    /// [`TrainError::Locked`] names the process that has it; [`TrainError::Io`].
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        let path = directory.join(LOCK);
        let error = |action| TrainError::io(action, &path);
        let mut options = File::options();
        let mut file = options
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(error("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is a courtesy; that somebody does is known.
                let _ = file.read_to_string(&mut holder);
                let holder =
                    if holder.trim().is_empty() { "unknown" } else { holder.trim() }.to_owned();
                return Err(TrainError::Locked {
                    directory: directory.to_owned(),
                    file: path,
                    holder,
                });
            }
            Err(TryLockError::Error(reason)) => return Err(error("lock")(reason)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(error("write"))?;
        Ok(Self { file })
    }
}

impl Drop for RunLock {
    /// Closing the file is not enough where a child process holds a copy of it, if only until it
    /// runs its own program.
    fn drop(&mut self) {
        // What cannot be unlocked is unlocked by the end of the process.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
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
    fn a_copy_of_the_file_does_not_prolong_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let lock = RunLock::take(directory.path()).unwrap();
        let _inherited = lock.file.try_clone().unwrap();
        drop(lock);
        RunLock::take(directory.path()).unwrap();
    }

    #[test]
    fn the_file_of_a_dead_process_is_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(LOCK), "4194304999\n").unwrap();
        let _lock = RunLock::take(directory.path()).unwrap();
        let holder = std::fs::read_to_string(directory.path().join(LOCK)).unwrap();
        assert_eq!(holder, format!("{}\n", std::process::id()));
    }
}
