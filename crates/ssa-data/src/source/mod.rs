//! Reading documents from files and directories.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::{DataError, Result};

/// How much of a file is read before it is asked whether it is binary, so that a folder with large
/// model files or archives costs little.
pub(crate) const PROBE_BYTES: u64 = 8192;

/// A text with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where the text comes from, for people to read.
    pub name: String,
    /// The text: bytes that need not be UTF-8.
    pub text: Vec<u8>,
}

/// Bytes of text in all documents.
pub fn text_bytes(documents: &[Document]) -> usize {
    documents.iter().map(|document| document.text.len()).sum()
}

/// Reads each file as one document, and directories recursively in sorted order.
///
/// * Inside a directory, hidden entries (a leading dot), empty files, files with a NUL byte
///   (binary) and whatever is not a file (sockets, pipes, links to nothing) are skipped.
/// * A file that is named itself is taken, also when it is hidden, binary or a pipe, but not if its
///   name says that it is compressed or Parquet: no one means those bytes.
/// * Links are followed, and every file and directory is read once however many paths lead to it.
///   So a loop of links ends, and a file given twice cannot end up on both sides of a held-out
///   split.
///
/// # Errors
/// A path is missing, unreadable, an empty file or one that has to be prepared, a directory holds
/// no text, or `paths` is empty. An unreadable entry below a directory is an error too: silently
/// training on less text than was asked for would be worse.
pub fn read_documents(paths: &[PathBuf]) -> Result<Vec<Document>> {
    if paths.is_empty() {
        return Err(DataError::NoPaths);
    }
    let mut reader = Reader::default();
    for path in paths {
        let metadata = fs::metadata(path).map_err(|source| DataError::from_open(path, source))?;
        if !metadata.is_dir() {
            reader.take_file(path)?;
        } else if !reader.holds_text(path, &metadata)? {
            return Err(DataError::EmptyDirectory { path: path.clone() });
        }
    }
    Ok(reader.documents)
}

#[derive(Default)]
struct Reader {
    documents: Vec<Document>,
    /// Canonical path of every file and directory met so far, and whether text was found there.
    met: HashMap<PathBuf, bool>,
}

impl Reader {
    /// Reads a file that was named itself.
    fn take_file(&mut self, path: &Path) -> Result<()> {
        let key = canonical(path);
        if self.met.get(&key) == Some(&true) {
            return Ok(());
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("gz" | "zst" | "parquet")) {
            return Err(DataError::NotPlainText { path: path.to_owned() });
        }
        let text = fs::read(path).map_err(|source| DataError::from_open(path, source))?;
        if text.is_empty() {
            return Err(DataError::EmptyFile { path: path.to_owned() });
        }
        self.push(path, text);
        self.met.insert(key, true);
        Ok(())
    }

    /// Reads a file of a directory, or a whole directory, unless it was met before; says whether it
    /// holds text.
    fn holds_text(&mut self, path: &Path, metadata: &Metadata) -> Result<bool> {
        let key = canonical(path);
        if let Some(&known) = self.met.get(&key) {
            return Ok(known);
        }
        // Entered before the directory is walked: this is where a loop of links ends.
        self.met.insert(key.clone(), false);
        let holds_text = if metadata.is_dir() {
            self.walk(path)?
        } else if let Some(text) =
            read_if_text(path, metadata).map_err(|source| DataError::from_open(path, source))?
        {
            self.push(path, text);
            true
        } else {
            false
        };
        self.met.insert(key, holds_text);
        Ok(holds_text)
    }

    fn walk(&mut self, directory: &Path) -> Result<bool> {
        let mut holds_text = false;
        for path in entries(directory)?.iter().filter(|path| !is_hidden(path)) {
            match fs::metadata(path) {
                Ok(metadata) => holds_text |= self.holds_text(path, &metadata)?,
                Err(_) if path.is_symlink() => {}
                Err(source) => return Err(DataError::from_open(path, source)),
            }
        }
        Ok(holds_text)
    }

    fn push(&mut self, path: &Path, text: Vec<u8>) {
        self.documents.push(Document { name: path.display().to_string(), text });
    }
}

/// The text of a file found in a directory: nothing if it is empty, binary or not a regular file.
fn read_if_text(path: &Path, metadata: &Metadata) -> io::Result<Option<Vec<u8>>> {
    // Opening a pipe would wait for a writer that may never come.
    if !metadata.is_file() {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let mut text = Vec::new();
    file.by_ref().take(PROBE_BYTES).read_to_end(&mut text)?;
    if text.contains(&0) {
        return Ok(None);
    }
    let probed = text.len();
    file.read_to_end(&mut text)?;
    Ok((!text.is_empty() && !text[probed..].contains(&0)).then_some(text))
}

/// One name per file. A pipe such as `/dev/fd/63` has no canonical path and stands for itself.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The entries of a directory, in the order of their names.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries: io::Result<Vec<PathBuf>> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut entries = entries.map_err(|source| DataError::from_open(directory, source))?;
    entries.sort();
    Ok(entries)
}

pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests;
