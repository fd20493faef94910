//! All shards of a corpus as one list of documents.

use std::path::{Path, PathBuf};

use super::ShardReader;
use super::manifest::Manifest;
use super::part::PartFiles;
use super::reader::{indices, pair};
use crate::{DataError, Result};

/// The documents of all shards in a directory, or of one pair of files, numbered from 0.
#[derive(Debug)]
pub struct Corpus {
    path: PathBuf,
    shards: Vec<ShardReader>,
    /// Number of documents before each shard.
    starts: Vec<usize>,
}

impl Corpus {
    /// Whether a path is a corpus and not text: a directory with shards, a manifest of them or an
    /// unfinished preparation, or one pair of files. [`open`](Self::open) reports errors.
    pub fn is_at(path: &Path) -> bool {
        if !path.is_dir() {
            let (bin, idx) = pair(path);
            return bin.is_file() && idx.is_file();
        }
        let prepared = PartFiles::of(path).is_ok_and(|files| {
            // Another program may have a manifest, too.
            let is_manifest = |path: &PathBuf| Manifest::read_file(path).is_ok();
            !files.preparations.is_empty() || files.manifests.iter().any(is_manifest)
        });
        prepared || indices(path).is_ok_and(|indices| !indices.is_empty())
    }

    /// Opens a directory of shards (sorted by name), or one pair given by either of its files or by
    /// their common path without extension.
    ///
    /// # Errors
    /// Errors of [`ShardReader::open`]; [`DataError::Corpus`] for a directory without an index;
    /// [`DataError::Missing`] if the path does not exist.
    pub fn open(path: &Path) -> Result<Self> {
        let (bin, idx) = pair(path);
        if !path.exists() && !bin.exists() && !idx.exists() {
            return Err(DataError::Missing { path: path.to_owned() });
        }
        let shards =
            if path.is_dir() { open_directory(path)? } else { vec![ShardReader::open(path)?] };
        let starts = shards
            .iter()
            .scan(0, |next, shard| {
                let start = *next;
                *next += shard.documents();
                Some(start)
            })
            .collect();
        Ok(Self { path: path.to_owned(), shards, starts })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The shards, sorted by name.
    pub fn shards(&self) -> &[ShardReader] {
        &self.shards
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.shards.iter().map(ShardReader::documents).sum()
    }

    /// Number of tokens.
    pub fn tokens(&self) -> u64 {
        self.shards.iter().map(ShardReader::tokens).sum()
    }

    /// The tokens of a document, including its end-of-document token if the corpus has them.
    ///
    /// # Errors
    /// As [`ShardReader::read`].
    ///
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents), as for a slice.
    pub fn document(&self, document: usize) -> Result<Vec<u32>> {
        let (shard, document) = self.shard_of(document);
        shard.document(document)
    }

    /// Number of tokens of a document, without reading them.
    ///
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents).
    pub fn document_tokens(&self, document: usize) -> usize {
        let (shard, document) = self.shard_of(document);
        shard.document_tokens(document)
    }

    /// Bytes of text of a document, if the shard records them.
    pub(crate) fn text_bytes(&self, document: usize) -> Option<u64> {
        let (shard, document) = self.shard_of(document);
        shard.text_bytes(document)
    }

    /// The shard of a document and its number in the shard.
    ///
    /// # Panics
    /// If `document` is not below [`documents`](Self::documents).
    pub fn shard_of(&self, document: usize) -> (&ShardReader, usize) {
        let shard = self.starts.partition_point(|&start| start <= document) - 1;
        (&self.shards[shard], document - self.starts[shard])
    }
}

fn open_directory(directory: &Path) -> Result<Vec<ShardReader>> {
    let indices = indices(directory)?;
    if indices.is_empty() {
        return Err(DataError::Corpus {
            path: directory.to_owned(),
            cause: "no shard (.bin and .idx files) in this directory".to_owned(),
            hint: "create shards with `ssa data prepare`",
        });
    }
    indices.iter().map(|path| ShardReader::open(path)).collect()
}
