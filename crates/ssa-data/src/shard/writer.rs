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
    /// [`DataError::Text`](crate::DataError::Text) for an id that the type of token cannot hold,
    /// [`DataError::File`](crate::DataError::File) if the file cannot be written.
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

/// A file that counts and sums what is written to it.
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

    /// Gives the file its name once its bytes are on disk.
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
