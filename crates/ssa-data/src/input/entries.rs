//! Paths, and the entries of a directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{DataError, Result};

/// The entries of a directory, sorted by name.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries: io::Result<Vec<PathBuf>> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut entries = entries.map_err(|source| DataError::from_open(directory, source))?;
    entries.sort();
    Ok(entries)
}

pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Returns one name per file. A pipe such as `/dev/fd/63` has no canonical path and is returned
/// unchanged.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
