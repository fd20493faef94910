//! Writing one shard.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use ssa_text::TextError;

use super::idx::{TokenType, write_index};
use crate::file_sum::{FileSum, hexadecimal};
use crate::{DataError, Result};

/// Writes documents to a `.bin`/`.idx` pair.
///
/// The files appear under their names when [`finish`](Self::finish) has written and synced them,
/// the index last: an index that can be seen belongs to a whole shard. A writer that is dropped
/// before leaves nothing.
#[derive(Debug)]
pub struct ShardWriter {
    stem: PathBuf,
    bin: SummedFile,
    token_type: TokenType,
    lengths: Vec<u32>,
    /// Bytes of the text of each document; empty if they are not known.
    text_bytes: Vec<u32>,
    tokens: u64,
}

/// What the files of a shard hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFiles {
    /// The tokens.
    pub bin: FileSum,
    /// The index.
    pub idx: FileSum,
    /// Bytes of text of each document, if they are known.
    pub bytes: Option<FileSum>,
}

impl ShardWriter {
    /// Starts the pair `stem`.bin and `stem`.idx.
    ///
    /// # Errors
    /// [`DataError::Write`] if the file cannot be made.
    pub fn create(stem: &Path, token_type: TokenType) -> Result<Self> {
        let bin = SummedFile::create(&with_extension(stem, "bin.partial"))?;
        let (lengths, text_bytes) = (Vec::new(), Vec::new());
        Ok(Self { stem: stem.to_owned(), bin, token_type, lengths, text_bytes, tokens: 0 })
    }

    /// Number of tokens so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Number of documents so far.
    pub fn documents(&self) -> usize {
        self.lengths.len()
    }

    /// Appends a document.
    ///
    /// # Errors
    /// [`DataError::Text`] for an id that the type of token cannot hold, [`DataError::Write`] if the
    /// disk refuses.
    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        let mut bytes = Vec::with_capacity(ids.len() * self.token_type.bytes());
        encode_tokens(ids, self.token_type, &mut bytes)?;
        self.push_encoded(&bytes, None)
    }

    /// Appends a document whose tokens are `bytes`, of the shard's type, and whose text has so many
    /// bytes: known of all documents of a shard, or of none.
    pub(crate) fn push_encoded(&mut self, bytes: &[u8], text_bytes: Option<u32>) -> Result<()> {
        let tokens = bytes.len() / self.token_type.bytes();
        self.bin.write(bytes)?;
        self.lengths.push(u32::try_from(tokens).unwrap_or(u32::MAX));
        self.text_bytes.extend(text_bytes);
        self.tokens += tokens as u64;
        Ok(())
    }

    /// Ends the shard; returns what its files hold.
    ///
    /// # Errors
    /// [`DataError::Write`] if the disk refuses.
    pub fn finish(self) -> Result<ShardFiles> {
        let Self { stem, bin, token_type, lengths, text_bytes, .. } = self;
        let bytes =
            if text_bytes.is_empty() { None } else { Some(write_bytes(&stem, &text_bytes)?) };
        let mut idx = SummedFile::create(&with_extension(&stem, "idx.partial"))?;
        let failed = |source| DataError::write(&with_extension(&stem, "idx"), source);
        write_index(&mut idx, token_type, &lengths).map_err(failed)?;
        let bin = bin.finish(&with_extension(&stem, "bin"))?;
        Ok(ShardFiles { bin, idx: idx.finish(&with_extension(&stem, "idx"))?, bytes })
    }
}

/// Writes the bytes of text of each document.
fn write_bytes(stem: &Path, text_bytes: &[u32]) -> Result<FileSum> {
    let mut file = SummedFile::create(&with_extension(stem, "bytes.partial"))?;
    for number in text_bytes {
        SummedFile::write(&mut file, &number.to_le_bytes())?;
    }
    file.finish(&with_extension(stem, "bytes"))
}

/// Appends the stored form of tokens to `bytes`.
pub(crate) fn encode_tokens(ids: &[u32], token_type: TokenType, bytes: &mut Vec<u8>) -> Result<()> {
    let limit = match token_type {
        TokenType::U16 => u32::from(u16::MAX),
        TokenType::U32 => i32::MAX.cast_unsigned(),
    };
    if let Some(&id) = ids.iter().find(|&&id| id > limit) {
        return Err(TextError::UnknownToken { id, vocab_size: limit as usize + 1 }.into());
    }
    match token_type {
        TokenType::U16 => bytes.extend(ids.iter().flat_map(|&id| (id as u16).to_le_bytes())),
        TokenType::U32 => bytes.extend(ids.iter().flat_map(|&id| id.to_le_bytes())),
    }
    Ok(())
}

/// `stem` with an extension added: a stem may have dots of its own.
pub(super) fn with_extension(stem: &Path, extension: &str) -> PathBuf {
    let mut path = stem.to_owned().into_os_string();
    path.push(".");
    path.push(extension);
    PathBuf::from(path)
}

/// A file under a provisional name that counts and sums what is written to it.
#[derive(Debug)]
struct SummedFile {
    path: PathBuf,
    file: BufWriter<File>,
    sum: Sha256,
    bytes: u64,
    finished: bool,
}

impl SummedFile {
    fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|source| DataError::write(path, source))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { path: path.to_owned(), file, sum: Sha256::new(), bytes: 0, finished: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(|source| DataError::write(&self.path, source))
    }

    /// Gives the file its name once its bytes are on the disk.
    fn finish(mut self, path: &Path) -> Result<FileSum> {
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_data())
            .and_then(|()| fs::rename(&self.path, path))
            .map_err(|source| DataError::write(path, source))?;
        self.finished = true;
        let sha256 = hexadecimal(&std::mem::take(&mut self.sum).finalize());
        Ok(FileSum { bytes: self.bytes, sha256 })
    }
}

impl Write for SummedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for SummedFile {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: the provisional name is never read, and the next run writes over it.
            let _ = fs::remove_file(&self.path);
        }
    }
}
