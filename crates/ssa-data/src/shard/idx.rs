//! The index of a shard in the format of Megatron-LM. All numbers are little-endian.
//!
//! ```text
//! "MMIDIDX\0\0"             9 bytes
//! version = 1               u64
//! type of a token           u8: 8 = 16 bits unsigned, 4 = 32 bits
//! sequences S               u64
//! document borders D + 1    u64
//! lengths                   i32 x S         tokens of each sequence
//! pointers                  i64 x S         its first byte in the .bin file
//! documents                 i64 x (D + 1)   its first sequence; the last border is S
//! modes                     i8 x S          optional, for data other than text; ignored
//! ```
//!
//! A document may have several sequences (sentences). Sequences are contiguous in the `.bin` file.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::ops::Range;
use std::path::Path;

use super::positioned::{self, Section};
use crate::{DataError, Result};

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const VERSION: u64 = 1;
const HEADER_BYTES: usize = 34;
/// Bytes of each array of the index that are read at a time.
const BUFFER: usize = 1 << 16;

/// How a token is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// 16 bits.
    U16,
    /// 32 bits. Megatron reads them as signed, so ids are below 2^31.
    U32,
}

impl TokenType {
    /// The smallest type that holds every id of a vocabulary.
    pub fn for_vocabulary(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 { Self::U16 } else { Self::U32 }
    }

    /// Bytes of a token.
    pub fn bytes(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::U16 => 8,
            Self::U32 => 4,
        }
    }

    fn from_code(code: u8) -> Result<Self, String> {
        match code {
            8 => Ok(Self::U16),
            4 => Ok(Self::U32),
            _ => Err(format!(
                "its tokens have type {code}, but only types 8 (16 bits) and 4 (32 bits) are text"
            )),
        }
    }
}

/// A checked index: where the documents of a shard begin.
#[derive(Debug)]
pub(super) struct Index {
    token_type: TokenType,
    /// The first token of each document, and the end of the last.
    starts: Vec<u64>,
}

/// Why an index cannot be used.
enum Failure {
    Read(io::Error),
    Damaged(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl Index {
    /// Reads and checks an index. Keeps 8 bytes per document in memory.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = ssa_files::open(path).map_err(|source| DataError::from_open(path, source))?;
        Self::read(&file).map_err(|failure| match failure {
            Failure::Read(source) => DataError::Read { path: path.to_owned(), source },
            Failure::Damaged(cause) => DataError::damaged_shard(path, cause),
        })
    }

    fn read(file: &File) -> Result<Self, Failure> {
        let damaged = |cause: String| Err(Failure::Damaged(cause));
        let length = file.metadata()?.len();
        let mut header = [0; HEADER_BYTES];
        if length >= HEADER_BYTES as u64 {
            positioned::read_exact(file, &mut header, 0)?;
        }
        if &header[..9] != MAGIC {
            return damaged("it is not a Megatron index, which starts with MMIDIDX".to_owned());
        }
        let version = u64_at(&header, 9);
        if version != VERSION {
            return damaged(format!(
                "it is a Megatron index of version {version}, but only version 1 is supported"
            ));
        }
        let token_type = TokenType::from_code(header[17]).map_err(Failure::Damaged)?;
        let (sequences, borders) = (u64_at(&header, 18), u64_at(&header, 26));
        let expected = (|| {
            let arrays = sequences.checked_mul(12)?.checked_add(borders.checked_mul(8)?)?;
            arrays.checked_add(HEADER_BYTES as u64)
        })();
        let Some(expected) = expected.filter(|_| borders > 0) else {
            return damaged("its header is damaged".to_owned());
        };
        if length != expected && Some(length) != expected.checked_add(sequences) {
            return damaged(format!("it has {length} bytes where its header promises {expected}"));
        }
        // The file has this length, so the counts fit in memory.
        let lengths = HEADER_BYTES as u64;
        let pointers = lengths + sequences * 4;
        let documents = pointers + sequences * 8;
        let array = |at, length| BufReader::with_capacity(BUFFER, Section::new(file, at, length));
        let sequences = Sequences {
            lengths: array(lengths, sequences * 4),
            pointers: array(pointers, sequences * 8),
            width: token_type.bytes() as u64,
            count: sequences,
            done: 0,
            tokens: 0,
        };
        let starts = sequences.starts(array(documents, borders * 8), borders)?;
        Ok(Self { token_type, starts })
    }

    pub(super) fn token_type(&self) -> TokenType {
        self.token_type
    }

    pub(super) fn documents(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn tokens(&self) -> u64 {
        self.starts[self.documents()]
    }

    /// The tokens of a document, as positions in the shard.
    pub(super) fn document(&self, document: usize) -> Range<u64> {
        self.starts[document]..self.starts[document + 1]
    }
}

/// The sequences of an index, read one after another.
struct Sequences<R> {
    lengths: R,
    pointers: R,
    /// Bytes of a token.
    width: u64,
    /// Number of sequences.
    count: u64,
    /// How many have been read.
    done: u64,
    /// Tokens of those.
    tokens: u64,
}

impl<R: Read> Sequences<R> {
    /// The tokens before each of the document borders.
    fn starts(mut self, mut borders: R, count: u64) -> Result<Vec<u64>, Failure> {
        let mut starts = Vec::new();
        for document in 0..count {
            let border = i64::from_le_bytes(next(&mut borders)?);
            let first_is_0 = document > 0 || border == 0;
            let border = u64::try_from(border).ok().filter(|&border| border <= self.count);
            let Some(border) = border.filter(|&border| first_is_0 && border >= self.done) else {
                return Err(self.borders_do_not_ascend());
            };
            while self.done < border {
                self.read_one()?;
            }
            starts.push(self.tokens);
        }
        if self.done == self.count { Ok(starts) } else { Err(self.borders_do_not_ascend()) }
    }

    /// Reads a sequence and checks that it starts where the one before ends.
    fn read_one(&mut self) -> Result<(), Failure> {
        let sequence = self.done;
        let pointer = i64::from_le_bytes(next(&mut self.pointers)?);
        let expected = self.tokens * self.width;
        if u64::try_from(pointer) != Ok(expected) {
            return Err(Failure::Damaged(format!(
                "sequence {sequence} does not start where the one before ends (byte {pointer} \
                 instead of {expected})"
            )));
        }
        let length = i32::from_le_bytes(next(&mut self.lengths)?);
        let Ok(length) = u32::try_from(length) else {
            let cause = format!("sequence {sequence} has a length of {length}");
            return Err(Failure::Damaged(cause));
        };
        self.tokens += u64::from(length);
        self.done += 1;
        Ok(())
    }

    fn borders_do_not_ascend(&self) -> Failure {
        Failure::Damaged(format!(
            "its document borders do not ascend from 0 to its {} sequences",
            self.count
        ))
    }
}

fn next<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The 64-bit number at a byte of the header.
fn u64_at(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    header[at..].first_chunk().map_or(0, |&bytes| u64::from_le_bytes(bytes))
}

/// Writes the index of documents with these lengths, one sequence each.
pub(super) fn write_index(
    mut out: impl Write,
    token_type: TokenType,
    lengths: &[u32],
) -> io::Result<()> {
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&[token_type.code()])?;
    let sequences = lengths.len() as u64;
    out.write_all(&sequences.to_le_bytes())?;
    out.write_all(&(sequences + 1).to_le_bytes())?;
    for length in lengths {
        out.write_all(&length.to_le_bytes())?;
    }
    let mut pointer = 0_u64;
    for &length in lengths {
        out.write_all(&pointer.to_le_bytes())?;
        pointer += u64::from(length) * token_type.bytes() as u64;
    }
    for border in 0..=sequences {
        out.write_all(&border.to_le_bytes())?;
    }
    out.flush()
}
