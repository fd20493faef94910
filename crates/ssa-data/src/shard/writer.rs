//! Writing one shard.

use std::io::{self, BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};

use ssa_files::{FileError, Operation, Sha256, StagedFile};
use ssa_text::TextError;

use super::idx::{TokenType, write_index};
use crate::Result;
use crate::file_sum::FileSum;

/// Writes documents to a `.bin`/`.idx` pair.
///
/// The files get their final names after [`finish`](Self::finish) has written and synced them, the
/// index last: a visible index belongs to a complete shard. A writer dropped earlier leaves
/// nothing.
#[derive(Debug)]
pub struct ShardWriter {
    stem: PathBuf,
    bin: SummedFile,
    token_type: TokenType,
    lengths: Vec<u32>,
    /// Bytes of text of each document; empty if unknown.
    text_bytes: Vec<u32>,
    tokens: u64,
}

/// The files of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFiles {
    /// The tokens file.
    pub bin: FileSum,
    /// The index file.
    pub idx: FileSum,
    /// The file with the bytes of text of each document, if known.
    pub bytes: Option<FileSum>,
}

impl ShardWriter {
    /// Creates the pair `stem`.bin and `stem`.idx.
    ///
    /// # Errors
    /// [`DataError::File`](crate::DataError::File) if the file cannot be created.
    pub fn create(stem: &Path, token_type: TokenType) -> Result<Self> {
        let bin = SummedFile::create(&with_extension(stem, "bin"))?;
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
    /// [`DataError::Text`](crate::DataError::Text) for an id that does not fit the token type,
    /// [`DataError::File`](crate::DataError::File) if the file cannot be written.
    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        let mut bytes = Vec::with_capacity(ids.len() * self.token_type.bytes());
        encode_tokens(ids, self.token_type, &mut bytes)?;
        self.push_encoded(&bytes, None)
    }

    /// Appends a document with encoded tokens `bytes`, of the shard's token type. `text_bytes` must
    /// be known for all documents of a shard or for none.
    pub(crate) fn push_encoded(&mut self, bytes: &[u8], text_bytes: Option<u32>) -> Result<()> {
        let tokens = bytes.len() / self.token_type.bytes();
        self.bin.write(bytes)?;
        self.lengths.push(u32::try_from(tokens).unwrap_or(u32::MAX));
        self.text_bytes.extend(text_bytes);
        self.tokens += tokens as u64;
        Ok(())
    }

    /// Completes the shard; returns its files.
    ///
    /// # Errors
    /// [`DataError::File`](crate::DataError::File) if a file cannot be written.
    pub fn finish(self) -> Result<ShardFiles> {
        let Self { stem, bin, token_type, lengths, text_bytes, .. } = self;
        let bytes =
            if text_bytes.is_empty() { None } else { Some(write_bytes(&stem, &text_bytes)?) };
        let path = with_extension(&stem, "idx");
        let mut idx = SummedFile::create(&path)?;
        write_index(&mut idx, token_type, &lengths)
            .map_err(FileError::at(Operation::Write, &path))?;
        let bin = bin.finish()?;
        Ok(ShardFiles { bin, idx: idx.finish()?, bytes })
    }
}

/// Writes the bytes of text of each document.
fn write_bytes(stem: &Path, text_bytes: &[u32]) -> Result<FileSum> {
    let mut file = SummedFile::create(&with_extension(stem, "bytes"))?;
    for number in text_bytes {
        SummedFile::write(&mut file, &number.to_le_bytes())?;
    }
    file.finish()
}

/// Appends encoded tokens to `bytes`.
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

/// Adds an extension to `stem`, which may contain dots.
pub(super) fn with_extension(stem: &Path, extension: &str) -> PathBuf {
    let mut path = stem.to_owned().into_os_string();
    path.push(".");
    path.push(extension);
    PathBuf::from(path)
}

/// A file that computes the size and checksum of the bytes written.
#[derive(Debug)]
struct SummedFile {
    path: PathBuf,
    file: BufWriter<StagedFile>,
    sum: Sha256,
    bytes: u64,
}

impl SummedFile {
    fn create(path: &Path) -> Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, StagedFile::create(path)?);
        Ok(Self { path: path.to_owned(), file, sum: Sha256::default(), bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.write_all(bytes);
        Ok(written.map_err(FileError::at(Operation::Write, &self.path))?)
    }

    /// Syncs the file and gives it its final name.
    fn finish(self) -> Result<FileSum> {
        let file = self.file.into_inner().map_err(IntoInnerError::into_error);
        file.map_err(FileError::at(Operation::Write, &self.path))?.commit()?;
        Ok(FileSum { bytes: self.bytes, sha256: self.sum.finish().to_string() })
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
