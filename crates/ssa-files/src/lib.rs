//! Crash-safe files: atomic writes, checksums, locks and JSON lines.
//!
//! ```text
//! StagedFile, write, write_json   a file is replaced atomically
//! AppendFile, JsonLines           a log grows by complete records
//! create_directory, rename, ...   names that survive a power failure
//! Sha256                          checksums in the format of `sha256sum`
//! Lock                            one process at a time
//! open, read                      reading with an end: no idle pipes, no devices
//! intercept                       hooks for tests to fail or stop at any operation
//! ```
//!
//! # Durability
//! There is one level. A new or replaced file is on disk under its name when the call returns: its
//! content is synced before the rename, its directory after it, and a failed sync is an error. The
//! same holds for a created directory and for a rename. An appended record is on disk after
//! [`AppendFile::sync`]. Removals are not synced: a removed file may reappear after a power
//! failure, so nothing may depend on its absence.
//!
//! Every error of writing is a [`FileError`], which names the operation and the file.

mod append;
mod directory;
mod error;
mod intercept;
mod json;
mod link;
mod lock;
mod operation;
mod read;
mod staged;
mod sum;
mod temporary;
#[cfg(test)]
mod tests;

pub use append::AppendFile;
pub use directory::{
    create_directories, create_directory, remove_directory_if_empty, remove_file, remove_files,
    remove_tree, rename, sync_directory,
};
pub use error::FileError;
pub use intercept::{Hook, intercept};
pub use json::{JsonLines, Lines, read_lines, write_json};
pub use link::replace_link;
pub use lock::{Lock, LockError};
pub use operation::Operation;
pub use read::{open, read, read_to_string};
pub use staged::{StagedFile, write, write_with};
pub use sum::{Sha256, Sha256Sum, hexadecimal};
pub use temporary::{is_temporary, remove_leftovers};

/// Result of the functions in this crate.
pub type Result<T, E = FileError> = std::result::Result<T, E>;
