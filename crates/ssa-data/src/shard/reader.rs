//! One shard, memory-mapped.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::idx::{Index, TokenType};
use super::mapped::Mapped;
use super::text_bytes;
use crate::{DataError, Result};

/// Consecutive tokens of a shard, as encoded on disk.
#[derive(Clone, Copy, Debug)]
pub enum Tokens<'a> {
    /// 16 bits each, little-endian.
    U16(&'a [[u8; 2]]),
    /// 32 bits each, little-endian.
    U32(&'a [[u8; 4]]),
}

impl<'a> Tokens<'a> {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        match self {
            Self::U16(tokens) => tokens.len(),
            Self::U32(tokens) => tokens.len(),
        }
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token at a position.
    pub fn get(&self, position: usize) -> Option<u32> {
        match self {
            Self::U16(tokens) => {
                tokens.get(position).map(|&bytes| u32::from(u16::from_le_bytes(bytes)))
            }
            Self::U32(tokens) => tokens.get(position).map(|&bytes| u32::from_le_bytes(bytes)),
        }
    }

    /// The tokens in a range.
    ///
    /// # Panics
    /// If `range` is out of bounds, as for a slice.
    pub fn slice(&self, range: Range<usize>) -> Tokens<'a> {
        match self {
            Self::U16(tokens) => Self::U16(&tokens[range]),
            Self::U32(tokens) => Self::U32(&tokens[range]),
        }
    }

    /// Appends the tokens to `ids`.
    pub fn append_to(&self, ids: &mut Vec<u32>) {
        match self {
            Self::U16(tokens) => {
                ids.extend(tokens.iter().map(|&bytes| u32::from(u16::from_le_bytes(bytes))));
            }
            Self::U32(tokens) => ids.extend(tokens.iter().map(|&bytes| u32::from_le_bytes(bytes))),
        }
    }

    /// Returns the tokens as a vector.
    pub fn to_vec(&self) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.len());
        self.append_to(&mut ids);
        ids
    }

    /// The largest token.
    pub fn max(&self) -> Option<u32> {
        match self {
            Self::U16(tokens) => {
                tokens.iter().map(|&bytes| u32::from(u16::from_le_bytes(bytes))).max()
            }
            Self::U32(tokens) => tokens.iter().map(|&bytes| u32::from_le_bytes(bytes)).max(),
        }
    }
}

/// An open `.bin`/`.idx` pair, for random access by many threads.
#[derive(Debug)]
pub struct ShardReader {
    bin_path: PathBuf,
    bin: Mapped,
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
            Mapped::open(&bin_path).map_err(|source| DataError::from_open(&bin_path, source))?;
        let (actual, expected) =
            (bin.bytes().len() as u64, index.tokens() * index.token_type().bytes() as u64);
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

    /// Checks that the files have not been truncated since they were opened.
    pub(crate) fn check_whole(&self) -> Result<()> {
        if self.bin.is_whole() && self.index.is_whole() {
            return Ok(());
        }
        Err(DataError::damaged_shard(&self.bin_path, "it was truncated while in use"))
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
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents), as for a slice.
    pub fn document(&self, document: usize) -> Tokens<'_> {
        self.slice(self.index.document(document))
    }

    /// Number of tokens of a document, without reading them.
    ///
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents).
    pub fn document_tokens(&self, document: usize) -> usize {
        let Range { start, end } = self.index.document(document);
        end.saturating_sub(start) as usize
    }

    fn slice(&self, tokens: Range<u64>) -> Tokens<'_> {
        let width = self.token_type().bytes();
        let bytes = &self.bin.bytes()[tokens.start as usize * width..tokens.end as usize * width];
        match self.token_type() {
            TokenType::U16 => Tokens::U16(bytes.as_chunks().0),
            TokenType::U32 => Tokens::U32(bytes.as_chunks().0),
        }
    }
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
