//! What has been read of a source: so that a later run can tell that it reads the same again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ssa_files::Sha256;

use crate::file_sum::FileSum;

/// What an error of a source that has changed says.
const CHANGED: &str = "it has changed since documents of it were written";

/// The bytes of one source read so far, and their sum.
#[derive(Debug, Default)]
pub(crate) struct ReadSum {
    /// Bytes of all sources together, which another thread watches.
    total: Arc<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    /// Whether bytes count for the total as they are read.
    uncounted: bool,
    sum: Sha256,
    /// What the start of the source was when documents of it were written.
    expected: Option<FileSum>,
}

impl ReadSum {
    /// Counts from nothing. If the start of the source is known, reading it again must give the
    /// same bytes.
    pub(crate) fn new(total: Arc<AtomicU64>, expected: Option<FileSum>) -> Arc<Self> {
        let state = Mutex::new(State { expected, ..State::default() });
        Arc::new(Self { total, state })
    }

    /// Bytes of all sources together.
    pub(crate) fn total(&self) -> &AtomicU64 {
        &self.total
    }

    /// Bytes read and their sum.
    pub(crate) fn so_far(&self) -> FileSum {
        let state = self.state();
        FileSum { bytes: state.bytes, sha256: state.sum.clone().finish().to_string() }
    }

    /// Whether all that was expected has been read.
    pub(crate) fn is_verified(&self) -> bool {
        self.state().expected.is_none()
    }

    /// From now on, and for what has been read already, bytes only count by [`count`](Self::count):
    /// for files that are not read in order.
    pub(super) fn stop_counting(&self) {
        let mut state = self.state();
        state.uncounted = true;
        self.total.fetch_sub(state.bytes, Ordering::Relaxed);
    }

    /// Counts bytes for the total alone.
    pub(super) fn count(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes. None stand for the end of the source.
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
    fn another_start_is_noticed_wherever_it_is_cut() {
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
