//! One shard, read document by document.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::idx::{Index, TokenType};
use super::{positioned, text_bytes};
use crate::{DataError, Result};

/// Bytes of the read buffer on the stack: most documents need one system call.
const BUFFER: usize = 1 << 14;

/// An open `.bin`/`.idx` pair, for random access by many threads.
#[derive(Debug)]
pub struct ShardReader {
    bin_path: PathBuf,
    bin: File,
    index: Index,
    /// Bytes of text of each document, if known.
    text_bytes: Option<Vec<u32>>,
}

impl ShardReader {
    /// Opens a pair by either of its files or by their common path without extension.
    ///
    /// # Errors
    /// [`DataError::Missing`] or [`DataError::Read`] if a file is missing or unreadable,
    /// [`DataError::Corpus`] if the index is not a complete Megatron index or does not match the
    /// number of tokens (a truncated file, or files of different pairs).
    pub fn open(path: &Path) -> Result<Self> {
        let (bin_path, idx_path) = pair(path);
        let index = Index::open(&idx_path)?;
        let bin =
            ssa_files::open(&bin_path).map_err(|source| DataError::from_open(&bin_path, source))?;
        let metadata = bin.metadata().map_err(|source| DataError::from_open(&bin_path, source))?;
        let (actual, expected) =
            (metadata.len(), index.tokens() * index.token_type().bytes() as u64);
        if actual != expected {
            let cause = format!(
                "it has {actual} bytes where its index {} has {expected}",
                idx_path.display()
            );
            return Err(DataError::damaged_shard(&bin_path, cause));
        }
        let text_bytes = text_bytes::read(&bin_path.with_extension("bytes"), index.documents())?;
        Ok(Self { bin_path, bin, index, text_bytes })
    }

    /// The file with the tokens.
    pub fn path(&self) -> &Path {
        &self.bin_path
    }

    /// Bytes of text of a document, if known.
    pub(crate) fn text_bytes(&self, document: usize) -> Option<u64> {
        Some(u64::from(*self.text_bytes.as_ref()?.get(document)?))
    }

    /// How a token is stored.
    pub fn token_type(&self) -> TokenType {
        self.index.token_type()
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.index.documents()
    }

    /// Number of tokens of all documents.
    pub fn tokens(&self) -> u64 {
        self.index.tokens()
    }

    /// The tokens of a document, including its end-of-document token if the corpus has them.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents), as for a slice.
    pub fn document(&self, document: usize) -> Result<Vec<u32>> {
        let tokens = self.document_tokens(document);
        let mut ids = Vec::with_capacity(tokens);
        self.read(document, 0..tokens, &mut ids)?;
        Ok(ids)
    }

    /// Appends a part of a document to `ids`.
    ///
    /// # Errors
    /// [`DataError::Corpus`] if the file has become shorter since it was opened,
    /// [`DataError::Read`] if it cannot be read.
    ///
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents).
    pub fn read(&self, document: usize, part: Range<usize>, ids: &mut Vec<u32>) -> Result<()> {
        let width = self.token_type().bytes();
        let start = self.index.document(document).start + part.start as u64;
        let mut buffer = [0; BUFFER];
        let (mut at, mut left) = (start * width as u64, part.len() * width);
        while left > 0 {
            let bytes = &mut buffer[..left.min(BUFFER)];
            positioned::read_exact(&self.bin, bytes, at).map_err(|source| self.failure(source))?;
            match self.token_type() {
                TokenType::U16 => {
                    let tokens = bytes.as_chunks().0.iter();
                    ids.extend(tokens.map(|&token| u32::from(u16::from_le_bytes(token))));
                }
                TokenType::U32 => {
                    ids.extend(bytes.as_chunks().0.iter().map(|&token| u32::from_le_bytes(token)));
                }
            }
            at += bytes.len() as u64;
            left -= bytes.len();
        }
        Ok(())
    }

    fn failure(&self, source: Error) -> DataError {
        match source.kind() {
            ErrorKind::UnexpectedEof => {
                let cause = "it was truncated while in use";
                DataError::damaged_shard(&self.bin_path, cause)
            }
            _ => DataError::Read { path: self.bin_path.clone(), source },
        }
    }

    /// Number of tokens of a document, without reading them.
    ///
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents).
    pub fn document_tokens(&self, document: usize) -> usize {
        let Range { start, end } = self.index.document(document);
        end.saturating_sub(start) as usize
    }
}

/// The index files of a directory, sorted by name.
pub(super) fn indices(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |source| DataError::Read { path: directory.to_owned(), source };
    let mut indices = Vec::new();
    for entry in directory.read_dir().map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            indices.push(path);
        }
    }
    indices.sort();
    Ok(indices)
}

/// The two files of a pair, given by either file or by their common path. Only these two extensions
/// are removed: the common path may contain dots.
pub(super) fn pair(path: &Path) -> (PathBuf, PathBuf) {
    let stem = match path.extension().and_then(|extension| extension.to_str()) {
        Some("bin" | "idx") => path.with_extension(""),
        _ => path.to_owned(),
    };
    let with = |extension: &str| {
        let mut path = stem.clone().into_os_string();
        path.push(extension);
        PathBuf::from(path)
    };
    (with(".bin"), with(".idx"))
}
