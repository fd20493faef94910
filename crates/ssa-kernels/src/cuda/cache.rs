//! Compiled kernels on disk.
//!
//! One file per (source, headers, macros, architecture, version of NVRTC), under a name made of
//! their hash, so that nothing is ever changed in place. Each is written as a whole: processes that
//! compile the same kernel at the same time put the same file there. It begins with a checksum; one
//! that does not match is compiled again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ssa_files::{FileError, Sha256, hexadecimal};

use super::compile::{compile, options};
use super::library::nvrtc_version;
use super::{HEADERS, Module};
use crate::Result;

/// Where machine code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Compiler,
    Disk,
}

/// Where compiled kernels are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCache {
    directory: Option<PathBuf>,
}

impl KernelCache {
    /// Keeps them in a directory, which is made when the first is kept.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Some(directory.into()) }
    }

    /// Compiles anew in every process.
    pub fn none() -> Self {
        Self { directory: None }
    }

    /// The directory, if there is one.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The compiled kernels on disk and their bytes.
    pub fn contents(&self) -> (usize, u64) {
        let Some(entries) = self.directory().and_then(|directory| fs::read_dir(directory).ok())
        else {
            return (0, 0);
        };
        let is_kernel = |entry: &fs::DirEntry| {
            entry.path().extension().is_some_and(|extension| extension == "cubin")
        };
        let sizes = entries
            .flatten()
            .filter(is_kernel)
            .filter_map(|entry| entry.metadata().ok())
            .map(|data| data.len());
        sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    /// The machine code of a module: from disk if it is there and whole, compiled and kept
    /// otherwise.
    ///
    /// # Errors
    /// [`KernelError::Compile`](crate::KernelError::Compile). A disk that cannot be read or written
    /// only costs time.
    pub(super) fn cubin(
        &self,
        module: &Module,
        defines: &[(&'static str, i64)],
        arch: &str,
    ) -> Result<(Vec<u8>, Origin)> {
        let Some(directory) = &self.directory else {
            return Ok((compile(module, defines, arch)?.cubin, Origin::Compiler));
        };
        let path = directory.join(format!("{}-{}.cubin", module.name, key(module, defines, arch)));
        if let Some(cubin) = fs::read(&path).ok().and_then(unsealed) {
            return Ok((cubin, Origin::Disk));
        }
        let cubin = compile(module, defines, arch)?.cubin;
        // A cache that cannot be written is no reason not to run.
        let _ = keep(directory, &path, &cubin);
        Ok((cubin, Origin::Compiler))
    }
}

/// Everything that the machine code depends on.
fn key(module: &Module, defines: &[(&'static str, i64)], arch: &str) -> String {
    let mut hash = Sha256::default();
    let headers = HEADERS.iter().flat_map(|(name, text)| [*name, *text]).map(str::to_owned);
    let parts = [module.source.to_owned(), nvrtc_version()]
        .into_iter()
        .chain(headers)
        .chain(options(defines, arch));
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hexadecimal(&hash.finish().as_bytes()[..16])
}

const CHECKSUM: usize = 32;

fn unsealed(mut file: Vec<u8>) -> Option<Vec<u8>> {
    if file.len() <= CHECKSUM {
        return None;
    }
    let cubin = file.split_off(CHECKSUM);
    (Sha256::of(&cubin).as_bytes()[..] == file).then_some(cubin)
}

/// Writes machine code and its checksum, and removes what killed processes left in the directory.
fn keep(directory: &Path, path: &Path, cubin: &[u8]) -> Result<(), FileError> {
    ssa_files::create_directories(directory)?;
    ssa_files::remove_leftovers(directory)?;
    ssa_files::write_with(path, |file| {
        file.write_all(Sha256::of(cubin).as_bytes())?;
        file.write_all(cubin)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.cubin");
        keep(directory.path(), &path, b"machine code").unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(unsealed(whole.clone()).unwrap(), b"machine code");
        for length in 0..whole.len() {
            assert_eq!(unsealed(whole[..length].to_vec()), None, "cut to {length}");
        }
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1;
            assert_eq!(unsealed(flipped), None, "flipped at {byte}");
        }
        assert_eq!(KernelCache::at(directory.path()).contents(), (1, whole.len() as u64));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn writers_at_once_leave_one_whole_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.cubin");
        let cubin = vec![7; 1 << 16];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        keep(directory.path(), &path, &cubin).unwrap();
                        // Whoever reads in between finds a whole file, never a part of one.
                        assert_eq!(unsealed(fs::read(&path).unwrap()).as_ref(), Some(&cubin));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
