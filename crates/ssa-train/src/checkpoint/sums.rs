//! Checksums of files, in the form of `sha256sum`.
//!
//! SHA-256 and not a CRC: anybody can check a copied checkpoint with a standard tool, the sum tells
//! two runs apart as well as it finds flipped bits, and processors of the last years compute it
//! faster than disks write.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use ssa_model::checkpoint::replace_file;

use super::SUMS;
use crate::{Result, TrainError};

/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// A file and what is wrong with it.
type Damage = (String, String);

/// A checksum in the making.
#[derive(Default)]
pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum in hexadecimal digits.
    pub(crate) fn finish(self) -> String {
        let mut text = String::new();
        for byte in self.0.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// The checksum of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut digest = Digest::default();
    digest.update(bytes);
    digest.finish()
}

/// Writes the checksums of files, read back from where they were written.
pub(super) fn write(directory: &Path, files: &[&str]) -> Result<()> {
    let mut lines = String::new();
    for file in files {
        let path = directory.join(file);
        let sum = sum_of(&path).map_err(TrainError::io("read", &path))?;
        lines += &format!("{sum}  {file}\n");
    }
    replace_file(&directory.join(SUMS), |file| file.write_all(lines.as_bytes()))
        .map_err(TrainError::with_remedy)
}

/// Checks that all files with a checksum are as they were written, and that `files` are among them.
///
/// # Errors
/// The first file that is not as it was written.
pub(super) fn verify(directory: &Path, files: &[&str]) -> Result<(), Damage> {
    verify_some(directory, files, |_| true)
}

/// The same, without a look at the content of files that are not `wanted`.
pub(super) fn verify_some(
    directory: &Path,
    files: &[&str],
    wanted: impl Fn(&str) -> bool,
) -> Result<(), Damage> {
    let sums = std::fs::read_to_string(directory.join(SUMS))
        .map_err(|reason| (SUMS.to_owned(), format!("it cannot be read: {reason}")))?;
    let damaged = |problem: String| (SUMS.to_owned(), problem);
    let mut listed = Vec::new();
    for line in sums.lines() {
        let (expected, file) =
            line.split_once("  ").ok_or_else(|| damaged(format!("it has a line `{line}`")))?;
        listed.push(file);
        if !wanted(file) {
            continue;
        }
        let found = sum_of(&directory.join(file))
            .map_err(|reason| (file.to_owned(), format!("it cannot be read: {reason}")))?;
        if found != expected {
            return Err((
                file.to_owned(),
                format!("its SHA-256 is {found}, {SUMS} says {expected}"),
            ));
        }
    }
    match files.iter().find(|file| !listed.contains(file)) {
        None => Ok(()),
        Some(file) => Err(damaged(format!("it has no checksum of {file}"))),
    }
}

fn sum_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Digest::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finish()),
            count => digest.update(&buffer[..count]),
        }
    }
}
