//! Files as byte streams, decompressed and converted to UTF-8.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::kind::{self, Compression, Content, PROBE_BYTES, Refusal};
use super::sum::ReadSum;
use super::utf16::{self, Utf16};
use super::{Format, refused};
use crate::{DataError, Result};

const BUFFER_BYTES: usize = 1 << 18;
/// The largest zstd window, as a power of two: that of `zstd --long=31`.
const ZSTD_WINDOW_LOG: u32 = if cfg!(target_pointer_width = "64") { 31 } else { 27 };

/// An opened file, or why it is refused.
pub(super) enum Opened {
    Stream(Stream),
    Refused(Refusal),
}

/// A stream and its content. Parquet is not decoded here.
pub(super) struct Stream {
    pub(super) reader: Box<dyn BufRead + Send>,
    pub(super) content: Content,
    /// Its first bytes.
    pub(super) start: Vec<u8>,
}

/// Opens a file, or standard input without a path. The kind depends on `name` and content: a cached
/// Hub file has a different path.
pub(super) fn open(
    path: Option<&Path>,
    name: &str,
    format: Format,
    sum: Arc<ReadSum>,
) -> Result<Opened> {
    let file: Box<dyn Read + Send> = match path {
        Some(path) => Box::new(open_file(path)?),
        None => Box::new(io::stdin()),
    };
    let unreadable = |source: io::Error| match path {
        Some(path) if source.raw_os_error().is_some() => {
            DataError::Read { path: path.to_owned(), source }
        }
        _ => super::lines::damaged(name, &source),
    };
    let (start, file) = peek(Counted { inner: file, sum }).map_err(unreadable)?;
    let compression = kind::compression(name, &start).map_err(|refusal| refused(name, refusal))?;
    let (start, reader) = if compression == Compression::None {
        (start, file)
    } else {
        peek(decompress(file, compression).map_err(unreadable)?).map_err(unreadable)?
    };
    let (start, reader) = match utf16::detect(&start) {
        None => (start, reader),
        Some(order) => peek(Utf16::new(reader, order)).map_err(unreadable)?,
    };
    Ok(match kind::content(name, &start, compression, format) {
        Ok(content) => Opened::Stream(Stream { reader, content, start }),
        Err(refusal) => Opened::Refused(refusal),
    })
}

fn open_file(path: &Path) -> Result<File> {
    ssa_files::open(path).map_err(|source| DataError::from_open(path, source))
}

/// Returns the first bytes of a stream, and the stream including them.
fn peek(mut reader: impl Read + Send + 'static) -> io::Result<(Vec<u8>, Box<dyn BufRead + Send>)> {
    let mut start = Vec::with_capacity(PROBE_BYTES);
    reader.by_ref().take(PROBE_BYTES as u64).read_to_end(&mut start)?;
    let whole = Cursor::new(start.clone()).chain(reader);
    Ok((start, Box::new(BufReader::with_capacity(BUFFER_BYTES, whole))))
}

fn decompress(
    file: Box<dyn BufRead + Send>,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send>> {
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(MultiGzDecoder::new(file)),
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(file)),
        Compression::Xz => Box::new(XzReader::new(file, true)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(file)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

/// Counts the bytes read and updates their checksum.
struct Counted<R> {
    inner: R,
    sum: Arc<ReadSum>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        // Zero bytes mean the end, unless the buffer is empty.
        if bytes > 0 || !buffer.is_empty() {
            self.sum.add(&buffer[..bytes])?;
        }
        Ok(bytes)
    }
}

/// Reads all stored bytes of a file.
pub(super) fn read_all(path: Option<&Path>, name: &str, sum: &Arc<ReadSum>) -> Result<()> {
    let file: Box<dyn Read + Send> = match path {
        Some(path) => Box::new(open_file(path)?),
        None => Box::new(io::stdin()),
    };
    let mut file =
        BufReader::with_capacity(BUFFER_BYTES, Counted { inner: file, sum: Arc::clone(sum) });
    io::copy(&mut file, &mut io::sink()).map_err(|error| super::lines::damaged(name, &error))?;
    Ok(())
}
