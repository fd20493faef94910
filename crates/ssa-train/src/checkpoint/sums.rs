//! `SHA256SUMS`: the checksums of a directory, in the format of `sha256sum`.

use std::path::Path;

use ssa_files::{FileError, Sha256};

use super::SUMS;
use crate::Result;

/// A file and what is wrong with it.
type Damage = (String, String);

/// Writes the checksums of files, which are read back from disk.
pub(super) fn write(directory: &Path, files: &[&str]) -> Result<()> {
    let mut lines = String::new();
    for file in files {
        lines += &format!("{}  {file}\n", sum_of(&directory.join(file))?);
    }
    Ok(ssa_files::write(&directory.join(SUMS), lines)?)
}

/// Checks that all files match their checksums, and that `files` are among them.
///
/// # Errors
/// The first file that does not match.
pub(super) fn verify(directory: &Path, files: &[&str]) -> Result<(), Damage> {
    verify_some(directory, files, |_| true)
}

/// Like [`verify`], but does not read files that are not `wanted`.
pub(super) fn verify_some(
    directory: &Path,
    files: &[&str],
    wanted: impl Fn(&str) -> bool,
) -> Result<(), Damage> {
    let sums = std::fs::read_to_string(directory.join(SUMS))
        .map_err(|reason| (SUMS.to_owned(), format!("it cannot be read: {reason}")))?;
    let damaged = |problem: String| (SUMS.to_owned(), problem);
    let mut listed = Vec::new();
    for line in sums.lines() {
        let (expected, file) =
            line.split_once("  ").ok_or_else(|| damaged(format!("it has a line `{line}`")))?;
        listed.push(file);
        if !wanted(file) {
            continue;
        }
        let found = sum_of(&directory.join(file))
            .map_err(|error| (file.to_owned(), format!("it cannot be read: {}", error.source)))?;
        if found != expected {
            return Err((
                file.to_owned(),
                format!("its SHA-256 is {found}, {SUMS} says {expected}"),
            ));
        }
    }
    match files.iter().find(|file| !listed.contains(file)) {
        None => Ok(()),
        Some(file) => Err(damaged(format!("it has no checksum of {file}"))),
    }
}

fn sum_of(path: &Path) -> Result<String, FileError> {
    Ok(Sha256::of_file(path)?.to_string())
}
