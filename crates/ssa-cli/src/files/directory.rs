//! Output directories that appear under their name only when they are whole.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::exit::UsageError;

/// Refuses an output directory that exists, or that an interrupted command has begun. `flag` names
/// it.
///
/// # Errors
/// [`UsageError`] with the path.
pub(crate) fn check_absent(path: &Path, flag: &str) -> Result<()> {
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    if path.file_name().is_none() {
        let message = format!("{flag} {}: expected the name of a directory", path.display());
        return Err(UsageError(message).into());
    }
    if exists(path) {
        let message = format!("{}: exists\nhint: name another {flag}", path.display());
        return Err(UsageError(message).into());
    }
    let partial = partial(path);
    if exists(&partial) {
        let partial = partial.display();
        let message = format!(
            "{partial}: exists; an interrupted command may have left it\nhint: remove {partial}"
        );
        return Err(UsageError(message).into());
    }
    Ok(())
}

/// Creates a directory whose files `write` writes. It gets its name when all of them are written;
/// after an error nothing is left.
///
/// # Errors
/// The error of `write`, or [`ssa_files::FileError`].
pub(crate) fn write_directory(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = partial(path);
    ssa_files::create_directories(&partial)?;
    let written = write(&partial).and_then(|()| Ok(ssa_files::rename(&partial, path)?));
    if written.is_err() {
        // The first error is the one to report.
        let _ = ssa_files::remove_tree(&partial);
    }
    written
}

/// The name of a directory while it is not whole.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.components().as_path().as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_is_whole_or_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("parent/out/");
        check_absent(&path, "--to").unwrap();
        let fail = |partial: &Path| {
            fs::write(partial.join("half"), "x")?;
            anyhow::bail!("no more")
        };
        assert_eq!(write_directory(&path, fail).unwrap_err().to_string(), "no more");
        check_absent(&path, "--to").unwrap();
        let write = |partial: &Path| {
            assert!(!path.exists());
            Ok(fs::write(partial.join("whole"), "x")?)
        };
        write_directory(&path, write).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(path.join("whole").is_file());
        let message = check_absent(&path, "--to").unwrap_err().to_string();
        assert!(message.contains("exists\nhint: name another --to"), "{message}");
    }

    #[test]
    fn what_an_interrupted_command_left_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("out.partial")).unwrap();
        let message = check_absent(&directory.path().join("out"), "--to").unwrap_err().to_string();
        assert!(message.contains("out.partial: exists; an interrupted"), "{message}");
        let message = check_absent(Path::new("/"), "--to").unwrap_err().to_string();
        assert_eq!(message, "--to /: expected the name of a directory");
    }
}
