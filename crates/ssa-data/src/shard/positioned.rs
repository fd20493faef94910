//! Reading a file at a position. Threads share the file, since no position is kept in it.

use std::fs::File;
use std::io;

/// Fills `bytes` with the contents of the file from the byte `at` on.
///
/// # Errors
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the file ends before.
#[cfg(unix)]
pub(super) fn read_exact(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
pub(super) fn read_exact(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                at += read as u64;
            }
        }
    }
    Ok(())
}

/// A part of a file as a stream.
#[derive(Debug)]
pub(super) struct Section<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl<'a> Section<'a> {
    /// The bytes of `file` from `at` on, `length` of them.
    pub(super) fn new(file: &'a File, at: u64, length: u64) -> Self {
        Self { file, at, end: at + length }
    }
}

impl io::Read for Section<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = bytes.len().min((self.end - self.at) as usize);
        read_exact(self.file, &mut bytes[..length], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}
