//! The bytes of text of each document of a shard: the `.bytes` file next to the pair.
//!
//! One little-endian `u32` per document. Bits per byte divide by these numbers: decoding tokens
//! would give different ones if the tokenizer changes the text.

use std::io::ErrorKind;
use std::path::Path;

use crate::{DataError, Result};

/// Reads the numbers of a shard; `None` if the shard has none.
pub(super) fn read(path: &Path, documents: usize) -> Result<Option<Vec<u32>>> {
    let bytes = match ssa_files::read(path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataError::Read { path: path.to_owned(), source }),
    };
    if bytes.len() as u64 != documents as u64 * 4 {
        let cause = format!("it has {} bytes for {documents} documents", bytes.len());
        return Err(DataError::damaged_shard(path, cause));
    }
    Ok(Some(bytes.as_chunks().0.iter().map(|&number| u32::from_le_bytes(number)).collect()))
}
