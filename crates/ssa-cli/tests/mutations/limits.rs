//! What one input may take.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// After this an input counts as a hang.
pub(crate) const LONGEST: Duration = Duration::from_secs(20);
/// The exit code of a process that a [`Watchdog`] ended.
pub(crate) const HUNG: i32 = 124;
/// Address space of a reader or command, in KiB.
pub(crate) const ADDRESS_SPACE: u64 = 6_000_000;

/// Ends the process when an input takes too long.
pub(crate) struct Watchdog {
    begun: Arc<AtomicU64>,
}

fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

impl Watchdog {
    pub(crate) fn start() -> Self {
        let begun = Arc::new(AtomicU64::new(now()));
        let watched = Arc::clone(&begun);
        thread::spawn(move || {
            while now() - watched.load(Ordering::Relaxed) < LONGEST.as_millis() as u64 {
                thread::sleep(Duration::from_millis(200));
            }
            std::process::exit(HUNG);
        });
        Self { begun }
    }

    pub(crate) fn begin(&self) {
        self.begun.store(now(), Ordering::Relaxed);
    }
}

/// The memory that this process has taken since [`Memory::begin`] at its fullest.
pub(crate) struct Memory {
    before: u64,
}

impl Memory {
    pub(crate) fn begin() -> Self {
        // Resets the peak to what is there.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        Self { before: peak() }
    }

    pub(crate) fn mebibytes(&self) -> u64 {
        peak().saturating_sub(self.before) >> 10
    }
}

/// The largest resident size, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
