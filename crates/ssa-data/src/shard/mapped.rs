//! Memory-mapped files: the only unsafe code of this crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A whole file as bytes, loaded page by page on access.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: Mmap,
    file: File,
}

impl Mapped {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private and only ever read. Rust requires that the file does not
        // change meanwhile, which no program can guarantee on a shared file system. Shards are
        // written under a temporary name and renamed when complete, so this project never changes
        // one in place. The bytes are used as plain numbers that are checked against their ranges:
        // an external change can give wrong tokens or end the process (a file truncated between
        // `is_whole` and the read), but cannot corrupt memory.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Self { map, file })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Whether the file still has the length of its mapping: reading beyond its end would be fatal.
    pub(crate) fn is_whole(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.len() >= self.map.len() as u64)
    }
}
