//! Memory-mapped files: the only unsafe code of this crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A whole file as bytes, read by the system page by page when it is looked at.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: Mmap,
    file: File,
}

impl Mapped {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private and only ever read. Rust requires that nobody changes the
        // file meanwhile, which no program can promise for a file system it shares; shards are
        // written under another name and renamed when whole, so that nothing in this project
        // changes one in place. The bytes are used as plain numbers that are checked against their
        // ranges: a change by others can give wrong tokens or end the process (a file cut short
        // between `is_whole` and the reading), and not break memory.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Self { map, file })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Whether the file still is as long as its mapping: reading beyond its end would be fatal.
    pub(crate) fn is_whole(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.len() >= self.map.len() as u64)
    }
}
