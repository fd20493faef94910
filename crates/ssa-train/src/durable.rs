//! What makes files outlast a power cut.

use std::fs::File;
use std::path::Path;

use ssa_data::{TOKENIZER_FILES, Tokenizer};

use crate::{Result, TrainError};

/// Makes the names in a directory durable. Some file systems cannot sync one; the content is safe
/// all the same.
pub(crate) fn sync_names(directory: &Path) {
    // The parent of a bare name is the empty path.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
}

/// Copies the files of a tokenizer into a directory and makes them durable; returns their names.
/// Bytes have none.
///
/// # Errors
/// [`TrainError::Data`] or [`TrainError::Io`] names the file.
pub(crate) fn copy_tokenizer(tokenizer: &Tokenizer, directory: &Path) -> Result<Vec<&'static str>> {
    tokenizer.copy_to(directory)?;
    let mut names = Vec::new();
    for name in TOKENIZER_FILES {
        let path = directory.join(name);
        if path.exists() {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(TrainError::io("write", &path))?;
            names.push(name);
        }
    }
    sync_names(directory);
    Ok(names)
}
