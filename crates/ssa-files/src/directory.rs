//! Directories and the names in them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::Result;
use crate::error::FileError;
use crate::intercept::perform;
use crate::operation::Operation;

/// Creates one directory, whose parent must exist.
///
/// # Errors
/// [`FileError`]; of kind [`ErrorKind::AlreadyExists`] if the name exists.
pub fn create_directory(path: &Path) -> Result<()> {
    perform(Operation::CreateDirectory, path, || fs::create_dir(path))?;
    sync_parent(path)
}

/// Creates a directory and its missing parents.
///
/// # Errors
/// [`FileError`] names the directory that cannot be created.
pub fn create_directories(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), create_directories)?;
    match create_directory(path) {
        // Another process created it.
        Err(error) if error.source.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}

/// Renames a file or directory. Like the system call, it replaces a file or an empty directory of
/// the new name.
///
/// # Errors
/// [`FileError`] names the new path.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    perform(Operation::Rename, to, || fs::rename(from, to))?;
    if from.parent() != to.parent() {
        sync_parent(from)?;
    }
    sync_parent(to)
}

/// Waits until the names in a directory are on disk. Does nothing if the system or the file system
/// cannot sync a directory.
///
/// # Errors
/// [`FileError`] names the directory.
pub fn sync_directory(path: &Path) -> Result<()> {
    // The parent of a bare name is the empty path.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let sync = || match File::open(path)?.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result,
    };
    if cfg!(unix) { perform(Operation::SyncDirectory, path, sync) } else { Ok(()) }
}

/// Syncs the parent directory of a path.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
}

/// Removes a file if it exists.
///
/// # Errors
/// [`FileError`] names the file.
pub fn remove_file(path: &Path) -> Result<()> {
    perform(Operation::Remove, path, || absent_is_fine(fs::remove_file(path)))
}

/// Removes files of a directory, and the directory if it is empty afterwards.
///
/// # Errors
/// [`FileError`] names the file.
pub fn remove_files(directory: &Path, names: &[&str]) -> Result<()> {
    names.iter().try_for_each(|name| remove_file(&directory.join(name)))?;
    remove_directory_if_empty(directory)
}

/// Removes a directory if it exists and is empty.
///
/// # Errors
/// [`FileError`] names the directory.
pub fn remove_directory_if_empty(path: &Path) -> Result<()> {
    let remove = || match fs::remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        result => absent_is_fine(result),
    };
    perform(Operation::Remove, path, remove)
}

/// Removes a file, a link or a directory with everything in it, if it exists. Links are not
/// followed.
///
/// # Errors
/// [`FileError`] names the path.
pub fn remove_tree(path: &Path) -> Result<()> {
    let remove = || match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    perform(Operation::Remove, path, || absent_is_fine(remove()))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The names in a directory, unsorted; empty if it does not exist.
pub(crate) fn entries(directory: &Path) -> Result<Vec<OsString>> {
    let list = || match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(vec![]),
        entries => entries?.map(|entry| Ok(entry?.file_name())).collect(),
    };
    list().map_err(FileError::at(Operation::Read, directory))
}
