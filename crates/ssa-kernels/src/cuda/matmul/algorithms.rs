//! The fastest algorithm for each product, found once and kept.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use cudarc::cublaslt::sys;
use ssa_files::{Sha256, hexadecimal};

use super::descriptors::{Descriptors, Preference};
use super::key::Key;
use super::{WORKSPACE, failed};
use crate::cuda::GpuProperties;
use crate::cuda::cache::KernelCache;
use crate::cuda::library::cublaslt_version;
use crate::{KernelError, Result};

/// Candidates that are timed.
const CANDIDATES: usize = 8;

/// The algorithms chosen so far, as text lines `key = hexadecimal` in one file per card and version
/// of the library.
///
/// Lines are only ever appended, whole, and the first of a key counts: processes that choose at
/// the same time may each write a line, and all later ones follow the first. An invalid line, or an
/// algorithm that the library rejects, is ignored.
pub(super) struct Algorithms {
    file: Option<PathBuf>,
    kept: HashMap<String, sys::cublasLtMatmulAlgo_t>,
}

impl Algorithms {
    pub(super) fn open(properties: &GpuProperties, cache: &KernelCache) -> Self {
        let card = Sha256::of(format!("{} cuBLASLt {}", properties.name, cublaslt_version()));
        let name = format!("matmul-{}.txt", hexadecimal(&card.as_bytes()[..8]));
        let file = cache.directory().map(|directory| directory.join(name));
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let mut kept = HashMap::new();
        for (key, algorithm) in text.lines().filter_map(parse) {
            kept.entry(key).or_insert(algorithm);
        }
        Self { file, kept }
    }

    /// The kept algorithm of a product, or the fastest of the candidates.
    pub(super) fn choose(
        &mut self,
        key: &Key,
        descriptors: &Descriptors,
        handle: sys::cublasLtHandle_t,
        fastest: impl FnOnce(
            &Descriptors,
            &[sys::cublasLtMatmulAlgo_t],
        ) -> Result<sys::cublasLtMatmulAlgo_t>,
    ) -> Result<sys::cublasLtMatmulAlgo_t> {
        let name = format!("{key:?}");
        if let Some(algorithm) = self.kept.get(&name)
            && is_usable(descriptors, algorithm, handle)
        {
            return Ok(*algorithm);
        }
        let algorithm = match candidates(key, descriptors, handle)?[..] {
            [only] => only,
            ref candidates => fastest(descriptors, candidates)?,
        };
        self.keep(name, algorithm);
        Ok(algorithm)
    }

    /// All algorithms as lines of text, in the order of the keys.
    pub(super) fn to_text(&self) -> String {
        let mut lines: Vec<String> = self
            .kept
            .iter()
            .map(|(key, algorithm)| format!("{key} = {}\n", text(algorithm)))
            .collect();
        lines.sort();
        lines.concat()
    }

    /// Uses the algorithms of such lines in this process.
    pub(super) fn adopt(&mut self, text: &str) {
        self.kept.extend(text.lines().filter_map(parse));
    }

    fn keep(&mut self, name: String, algorithm: sys::cublasLtMatmulAlgo_t) {
        if let Some(file) = &self.file {
            let line = format!("{name} = {}\n", text(&algorithm));
            // A cache that cannot be written costs a search in the next process.
            let _ = append(file, &line);
        }
        self.kept.insert(name, algorithm);
    }
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
    fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}

fn text(algorithm: &sys::cublasLtMatmulAlgo_t) -> String {
    algorithm.data.iter().map(|word| format!("{word:016x}")).collect()
}

fn parse(line: &str) -> Option<(String, sys::cublasLtMatmulAlgo_t)> {
    let (key, digits) = line.split_once(" = ")?;
    let mut data = [0; 8];
    if digits.len() != 16 * data.len() || !digits.is_ascii() {
        return None;
    }
    for (word, digits) in data.iter_mut().zip(digits.as_bytes().chunks(16)) {
        *word = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some((key.to_owned(), sys::cublasLtMatmulAlgo_t { data }))
}

/// Whether the library runs this algorithm on this product within the workspace.
fn is_usable(
    descriptors: &Descriptors,
    algorithm: &sys::cublasLtMatmulAlgo_t,
    handle: sys::cublasLtHandle_t,
) -> bool {
    let mut result = MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::zeroed();
    // SAFETY: handle and descriptors are open; the result has a place to be written to.
    let status = unsafe {
        sys::cublasLtMatmulAlgoCheck(
            handle,
            descriptors.operation,
            descriptors.first,
            descriptors.second,
            descriptors.output,
            descriptors.output,
            algorithm,
            result.as_mut_ptr(),
        )
    };
    // SAFETY: all bytes were zeroed, which is a valid result, or written by the library.
    let result = unsafe { result.assume_init() };
    status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS && result.workspaceSize <= WORKSPACE
}

/// What the library thinks fastest, best first.
fn candidates(
    key: &Key,
    descriptors: &Descriptors,
    handle: sys::cublasLtHandle_t,
) -> Result<Vec<sys::cublasLtMatmulAlgo_t>> {
    let preference = Preference::new(key, WORKSPACE)?;
    // SAFETY: a result is plain numbers, for which zeros are valid.
    let mut results: [sys::cublasLtMatmulHeuristicResult_t; CANDIDATES] =
        unsafe { MaybeUninit::zeroed().assume_init() };
    let mut found = 0;
    // SAFETY: handle and descriptors are open; there is a place for as many results as are asked
    // for.
    let status = unsafe {
        sys::cublasLtMatmulAlgoGetHeuristic(
            handle,
            descriptors.operation,
            descriptors.first,
            descriptors.second,
            descriptors.output,
            descriptors.output,
            preference.0,
            CANDIDATES as i32,
            results.as_mut_ptr(),
            &raw mut found,
        )
    };
    status.result().map_err(|error| failed("cublasLtMatmulAlgoGetHeuristic", error))?;
    let found = &results[..usize::try_from(found).unwrap_or(0).min(CANDIDATES)];
    let usable =
        found.iter().filter(|result| result.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
    let candidates: Vec<_> = usable.map(|result| result.algo).collect();
    if candidates.is_empty() {
        let message = format!("no algorithm for {key:?}");
        return Err(KernelError::Cuda { call: "cublasLtMatmulAlgoGetHeuristic", message });
    }
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_round_trip_and_invalid_ones_are_ignored() {
        let algorithm = sys::cublasLtMatmulAlgo_t { data: [1, 2, 3, u64::MAX, 5, 6, 7, 8] };
        let line = format!("Key {{ a = 1 }} = {}", text(&algorithm));
        // A key may not contain the separator; those made by `Debug` do not.
        assert_eq!(
            parse(&line.replace("a = 1", "a: 1")),
            Some(("Key { a: 1 }".to_owned(), algorithm))
        );
        for bad in ["", "key", "key = ", "key = 12", &"key = z".repeat(128)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
