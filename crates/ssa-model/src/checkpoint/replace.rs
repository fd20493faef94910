//! Replacing a file as a whole.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::{ModelError, Result};

/// Writes a file so that readers, and a machine that stops half way, find the old content or the
/// new and never a part: into `<name>.tmp` beside it, which is synced to disk and renamed.
///
/// # Errors
/// [`ModelError::Io`] with `path` and the reason, such as a full disk. The old file is then still
/// there and the temporary one removed.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let result = File::create(&temporary)
        .and_then(|mut file| {
            write(&mut file)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(reason) = result {
        // Best effort: the reason of the failure is what the caller must learn.
        let _ = fs::remove_file(&temporary);
        return Err(ModelError::io("write", path)(reason));
    }
    // Makes the rename itself durable. Some file systems cannot sync a folder; the content is safe
    // all the same.
    if let Some(folder) = path.parent() {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}
