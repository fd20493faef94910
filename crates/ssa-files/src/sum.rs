//! SHA-256 in the format of `sha256sum`.
//!
//! SHA-256 instead of a CRC: anyone can check a copied file with a standard tool, the checksum
//! identifies files in addition to detecting bit flips, and recent processors compute it faster
//! than disks write.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::Digest;

use crate::Result;
use crate::error::FileError;
use crate::operation::Operation;

/// Bytes per read.
const BUFFER: usize = 1 << 20;

/// A checksum being computed.
#[derive(Clone, Debug, Default)]
pub struct Sha256(sha2::Sha256);

/// A checksum; displayed as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sha256Sum([u8; 32]);

impl Sha256 {
    /// Computes the checksum of bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Sha256Sum {
        let mut sum = Self::default();
        sum.update(bytes);
        sum.finish()
    }

    /// Computes the checksum of a file, read in chunks.
    ///
    /// # Errors
    /// [`FileError`] names the file.
    pub fn of_file(path: &Path) -> Result<Sha256Sum> {
        let read = || {
            let (mut file, mut sum, mut piece) =
                (File::open(path)?, Self::default(), vec![0; BUFFER]);
            loop {
                match file.read(&mut piece)? {
                    0 => return Ok(sum.finish()),
                    count => sum.update(&piece[..count]),
                }
            }
        };
        read().map_err(FileError::at(Operation::Read, path))
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes);
    }

    /// Returns the checksum of all bytes.
    pub fn finish(self) -> Sha256Sum {
        Sha256Sum(self.0.finalize().into())
    }
}

impl Sha256Sum {
    /// The bytes of the checksum.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

/// Formats bytes as hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
