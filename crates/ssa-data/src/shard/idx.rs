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

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use super::mapped::Mapped;
use crate::{DataError, Result};

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const VERSION: u64 = 1;
const HEADER_BYTES: usize = 34;

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

/// A checked index.
#[derive(Debug)]
pub(super) struct Index {
    map: Mapped,
    token_type: TokenType,
    sequences: usize,
    documents: usize,
    tokens: u64,
}

impl Index {
    /// Maps and checks an index.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let map = Mapped::open(path).map_err(|source| DataError::from_open(path, source))?;
        Self::parse(map).map_err(|cause| DataError::damaged_shard(path, cause))
    }

    fn parse(map: Mapped) -> Result<Self, String> {
        let bytes = map.bytes();
        if bytes.get(..9) != Some(MAGIC) || bytes.len() < HEADER_BYTES {
            return Err("it is not a Megatron index, which starts with MMIDIDX".to_owned());
        }
        let version = u64_at(bytes, 9);
        if version != VERSION {
            return Err(format!(
                "it is a Megatron index of version {version}, but only version 1 is supported"
            ));
        }
        let token_type = TokenType::from_code(bytes[17])?;
        let (sequences, borders) = (u64_at(bytes, 18), u64_at(bytes, 26));
        let expected = (|| {
            let arrays = sequences.checked_mul(12)?.checked_add(borders.checked_mul(8)?)?;
            arrays.checked_add(HEADER_BYTES as u64)
        })();
        let Some(expected) = expected.filter(|_| borders > 0) else {
            return Err("its header is damaged".to_owned());
        };
        let actual = bytes.len() as u64;
        if actual != expected && Some(actual) != expected.checked_add(sequences) {
            return Err(format!("it has {actual} bytes where its header promises {expected}"));
        }
        // The file has this length, so the counts fit in memory.
        let mut index = Self {
            token_type,
            sequences: sequences as usize,
            documents: borders as usize - 1,
            tokens: 0,
            map,
        };
        index.tokens = index.check_sequences()?;
        index.check_documents()?;
        Ok(index)
    }

    /// Checks that sequences are contiguous; returns the number of tokens.
    fn check_sequences(&self) -> Result<u64, String> {
        let width = self.token_type.bytes() as u64;
        let mut tokens = 0_u64;
        for (sequence, (length, pointer)) in self.lengths().zip(self.pointers()).enumerate() {
            if u64::try_from(pointer) != Ok(tokens * width) {
                return Err(format!(
                    "sequence {sequence} does not start where the one before ends (byte {pointer} \
                     instead of {})",
                    tokens * width
                ));
            }
            let Ok(length) = u32::try_from(length) else {
                return Err(format!("sequence {sequence} has a length of {length}"));
            };
            tokens += u64::from(length);
        }
        Ok(tokens)
    }

    fn check_documents(&self) -> Result<(), String> {
        let mut borders = self.borders();
        let ascending = borders.next() == Some(0) && self.borders().is_sorted();
        if ascending && self.borders().next_back() == i64::try_from(self.sequences).ok() {
            Ok(())
        } else {
            Err(format!(
                "its document borders do not ascend from 0 to its {} sequences",
                self.sequences
            ))
        }
    }

    /// Whether the file still has its length.
    pub(super) fn is_whole(&self) -> bool {
        self.map.is_whole()
    }

    pub(super) fn token_type(&self) -> TokenType {
        self.token_type
    }

    pub(super) fn documents(&self) -> usize {
        self.documents
    }

    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The tokens of a document, as positions in the shard.
    pub(super) fn document(&self, document: usize) -> Range<u64> {
        assert!(document < self.documents, "document {document} of {}", self.documents);
        let borders = HEADER_BYTES + self.sequences * 12;
        let start_of = |border: usize| {
            let sequence = u64_at(self.map.bytes(), borders + border * 8) as usize;
            if sequence == self.sequences { self.tokens } else { self.start_of_sequence(sequence) }
        };
        start_of(document)..start_of(document + 1)
    }

    fn start_of_sequence(&self, sequence: usize) -> u64 {
        let pointer = u64_at(self.map.bytes(), HEADER_BYTES + self.sequences * 4 + sequence * 8);
        pointer / self.token_type.bytes() as u64
    }

    fn lengths(&self) -> impl Iterator<Item = i32> + '_ {
        let array = &self.map.bytes()[HEADER_BYTES..][..self.sequences * 4];
        array.as_chunks::<4>().0.iter().map(|&bytes| i32::from_le_bytes(bytes))
    }

    fn pointers(&self) -> impl Iterator<Item = i64> + '_ {
        let array = &self.map.bytes()[HEADER_BYTES + self.sequences * 4..][..self.sequences * 8];
        array.as_chunks::<8>().0.iter().map(|&bytes| i64::from_le_bytes(bytes))
    }

    fn borders(&self) -> impl DoubleEndedIterator<Item = i64> + '_ {
        let array =
            &self.map.bytes()[HEADER_BYTES + self.sequences * 12..][..(self.documents + 1) * 8];
        array.as_chunks::<8>().0.iter().map(|&bytes| i64::from_le_bytes(bytes))
    }
}

/// The 64-bit number at a byte offset inside the checked file. (If the file was changed, the number
/// is wrong, but all slicing with it is checked.)
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |&bytes| u64::from_le_bytes(bytes))
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
