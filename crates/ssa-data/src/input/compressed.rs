//! Files as streams of bytes, decompressed by the ending of their names.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use flate2::bufread::MultiGzDecoder;

use super::count;
use crate::{DataError, Result};

const BUFFER_BYTES: usize = 1 << 18;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A name without the ending of its compression, and that compression.
fn split_name(name: &str) -> (&str, Compression) {
    if let Some(stem) = name.strip_suffix(".gz") {
        (stem, Compression::Gzip)
    } else if let Some(stem) = name.strip_suffix(".zst") {
        (stem, Compression::Zstd)
    } else {
        (name, Compression::None)
    }
}

/// A name without the ending of its compression.
pub(super) fn uncompressed_name(name: &str) -> &str {
    split_name(name).0
}

/// Opens a file, or without a path the standard input. The name says how it is compressed: a file
/// of the hub can lie in a cache under another.
pub(super) fn open(
    path: Option<PathBuf>,
    name: &str,
    read: Arc<AtomicU64>,
) -> Result<Box<dyn BufRead + Send>> {
    let Some(path) = path else {
        return Ok(Box::new(BufReader::with_capacity(
            BUFFER_BYTES,
            Counted { inner: io::stdin(), read },
        )));
    };
    let file = File::open(&path).map_err(|source| DataError::from_open(&path, source))?;
    let file = BufReader::with_capacity(BUFFER_BYTES, Counted { inner: file, read });
    Ok(match split_name(name).1 {
        Compression::None => Box::new(file),
        Compression::Gzip => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file)))
        }
        Compression::Zstd => {
            let decoder = zstd::Decoder::with_buffer(file)
                .map_err(|source| DataError::Unreadable { path, source })?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
    })
}

/// Counts the bytes that are read.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        count(&self.read, bytes as u64);
        Ok(bytes)
    }
}
