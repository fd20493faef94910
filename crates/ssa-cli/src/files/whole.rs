//! Atomic output files.

use std::fs;
use std::path::Path;

use anyhow::Result;
use ssa_files::{FileError, Operation};

use crate::exit::UsageError;

/// Refuses an existing output, unless it may be overwritten or is not a regular file (a pipe or
/// device).
///
/// # Errors
/// Names the file and the flag.
pub(crate) fn check_writable(path: &Path, overwrite: bool) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            Err(UsageError(format!("{} is a directory; name a file to write", path.display()))
                .into())
        }
        Ok(metadata) if metadata.is_file() && !overwrite => Err(UsageError(format!(
            "{} exists; name another file, or pass --overwrite to replace it",
            path.display()
        ))
        .into()),
        Ok(_) => Ok(()),
        Err(_) => check_parent(path),
    }
}

/// Refuses a file in a directory that does not exist.
fn check_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            Err(crate::exit::FileError(format!(
                "cannot write {}: there is no directory {}\nhint: create it first",
                path.display(),
                parent.display()
            ))
            .into())
        }
        _ => Ok(()),
    }
}

/// Replaces a file atomically. A pipe or device is written directly.
///
/// # Errors
/// [`ssa_files::FileError`]. No partial file is left.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        fs::write(path, bytes).map_err(FileError::at(Operation::Write, path))?;
    } else {
        ssa_files::write(path, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_complete_or_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.bin");
        check_writable(&path, false).unwrap();
        write_whole(&path, b"one").unwrap();
        assert!(check_writable(&path, false).unwrap_err().to_string().contains("--overwrite"));
        check_writable(&path, true).unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
        let message = check_writable(directory.path(), true).unwrap_err().to_string();
        assert!(message.contains("is a directory"), "{message}");
        let absent = directory.path().join("absent/out.bin");
        assert!(write_whole(&absent, b"x").unwrap_err().to_string().contains("absent"));
    }
}
