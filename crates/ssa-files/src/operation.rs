//! File system operations of this crate.

use std::fmt;

/// An operation on a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reads a file or lists a directory. Never intercepted.
    Read,
    /// Creates a file, or opens one to append to it.
    Create,
    /// Writes or appends bytes, or truncates a file.
    Write,
    /// Waits until the content of a file is on disk.
    Sync,
    /// Renames a file or directory.
    Rename,
    /// Creates a symbolic link.
    Link,
    /// Creates a directory.
    CreateDirectory,
    /// Waits until the names in a directory are on disk.
    SyncDirectory,
    /// Removes a file or a directory with everything in it.
    Remove,
    /// Locks a file.
    Lock,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            // If any of these fails, the file could not be written.
            Self::Create | Self::Write | Self::Sync | Self::Rename | Self::Link => "write",
            Self::CreateDirectory => "create the directory",
            Self::SyncDirectory => "sync the directory",
            Self::Remove => "remove",
            Self::Lock => "lock",
        })
    }
}
