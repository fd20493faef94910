//! The error type of this crate.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::operation::Operation;

/// An operation on a file or directory failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}{}", path.display(), self.hint())]
pub struct FileError {
    /// What was tried.
    pub operation: Operation,
    /// The file or directory.
    pub path: PathBuf,
    /// The reason.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: adds what was tried, and on which file, to an error of the system.
    pub fn at(operation: Operation, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { operation, path: path.to_owned(), source }
    }

    /// What to do about it, as a line of its own; empty if there is nothing to say.
    fn hint(&self) -> &'static str {
        match self.source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "\nhint: free some space, or use a directory on another disk"
            }
            ErrorKind::FileTooLarge => {
                "\nhint: raise the limit on the size of files (`ulimit -f`), or use another disk"
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "\nhint: check the permissions, or use a directory that you may write to"
            }
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                "\nhint: use a path whose parents are directories"
            }
            ErrorKind::NotFound => "",
            _ => "\nhint: check the disk, or use a directory on another one",
        }
    }
}
