//! The error type of this crate.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::operation::Operation;

/// An operation on a file or directory failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}{}", path.display(), self.hint())]
pub struct FileError {
    /// The failed operation.
    pub operation: Operation,
    /// The file or directory.
    pub path: PathBuf,
    /// The reason.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: adds the operation and the file to an I/O error.
    pub fn at(operation: Operation, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { operation, path: path.to_owned(), source }
    }

    /// The hint line; empty if there is no remedy.
    fn hint(&self) -> &'static str {
        match self.source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "\nhint: free some space, or use a directory on another disk"
            }
            ErrorKind::FileTooLarge => {
                "\nhint: raise the file size limit (`ulimit -f`), or use another disk"
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "\nhint: check the permissions, or use a writable directory"
            }
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                "\nhint: use a path whose parents are directories"
            }
            ErrorKind::NotFound => "",
            _ => "\nhint: check the disk, or use a directory on another one",
        }
    }
}
