//! The checksum of the bytes read from a source, so that a resumed run can detect changes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ssa_files::Sha256;

use crate::file_sum::FileSum;

/// The error message for a source that has changed.
const CHANGED: &str = "it has changed since documents of it were written";

/// The number of bytes read from one source, and their checksum.
#[derive(Debug, Default)]
pub(crate) struct ReadSum {
    /// Bytes of all sources together, for the progress display.
    total: Arc<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    /// Whether bytes read are added to the total.
    uncounted: bool,
    sum: Sha256,
    /// The checksum of the start of the source when its documents were written.
    expected: Option<FileSum>,
}

impl ReadSum {
    /// Starts at zero bytes. If `expected` is given, reading must give the same bytes at the start.
    pub(crate) fn new(total: Arc<AtomicU64>, expected: Option<FileSum>) -> Arc<Self> {
        let state = Mutex::new(State { expected, ..State::default() });
        Arc::new(Self { total, state })
    }

    /// Bytes of all sources together.
    pub(crate) fn total(&self) -> &AtomicU64 {
        &self.total
    }

    /// Bytes read and their checksum.
    pub(crate) fn so_far(&self) -> FileSum {
        let state = self.state();
        FileSum { bytes: state.bytes, sha256: state.sum.clone().finish().to_string() }
    }

    /// Whether the expected start has been read and matches.
    pub(crate) fn is_verified(&self) -> bool {
        self.state().expected.is_none()
    }

    /// Stops adding read bytes to the total; [`count`](Self::count) does it instead. For files that
    /// are not read in order.
    pub(super) fn stop_counting(&self) {
        let mut state = self.state();
        state.uncounted = true;
        self.total.fetch_sub(state.bytes, Ordering::Relaxed);
    }

    /// Adds bytes to the total only.
    pub(super) fn count(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes. An empty slice means the end of the source.
    pub(super) fn add(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if !state.uncounted {
            self.count(bytes.len() as u64);
        }
        if let Some(FileSum { bytes: length, sha256 }) = state.expected.clone() {
            let at_end = bytes.is_empty();
            let missing = length - state.bytes;
            let (start, rest) = bytes.split_at(bytes.len().min(missing as usize));
            state.add(start);
            bytes = rest;
            if state.bytes == length {
                if state.sum.clone().finish().to_string() != sha256 {
                    return Err(io::Error::other(CHANGED));
                }
                state.expected = None;
            } else if at_end {
                return Err(io::Error::other(CHANGED));
            }
        }
        state.add(bytes);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(pieces: &[&[u8]], expected: Option<FileSum>) -> io::Result<FileSum> {
        let sum = ReadSum::new(Arc::default(), expected);
        for piece in pieces {
            sum.add(piece)?;
        }
        sum.add(&[])?;
        assert!(sum.is_verified());
        Ok(sum.so_far())
    }

    #[test]
    fn a_changed_start_is_detected_for_any_split() {
        let start = sum_of(&[b"abc"], None).unwrap();
        for pieces in [&[&b"abcde"[..]][..], &[b"a", b"bcd", b"e"], &[b"abc", b"de"]] {
            let whole = sum_of(pieces, Some(start.clone())).unwrap();
            assert_eq!(whole, sum_of(&[b"abcde"], None).unwrap());
        }
        for pieces in [&[&b"abX"[..]][..], &[b"X", b"bcde"], &[b"ab"], &[]] {
            let error = sum_of(pieces, Some(start.clone())).unwrap_err();
            assert_eq!(error.to_string(), CHANGED);
        }
    }
}
