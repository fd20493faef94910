//! What one input may take.

use std::fs;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// After this an input counts as a hang.
pub(crate) const LONGEST: Duration = Duration::from_secs(20);
/// The exit code of a process that a [`Watchdog`] ended.
pub(crate) const HUNG: i32 = 124;
/// Address space of a reader or command, in KiB.
pub(crate) const ADDRESS_SPACE: u64 = 6_000_000;

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Ends the process when an input takes too long. It counts ticks, so that a process that was
/// stopped for a while has not hung.
pub(crate) struct Watchdog {
    ticks: Arc<AtomicU64>,
}

impl Watchdog {
    pub(crate) fn start() -> Self {
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&ticks);
        thread::spawn(move || {
            let most = LONGEST.as_millis() / TICK.as_millis();
            while u128::from(counted.fetch_add(1, Ordering::Relaxed)) < most {
                thread::sleep(TICK);
            }
            process::exit(HUNG);
        });
        Self { ticks }
    }

    pub(crate) fn begin(&self) {
        self.ticks.store(0, Ordering::Relaxed);
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
        Self { before: peak(process::id()).unwrap() }
    }

    pub(crate) fn mebibytes(&self) -> u64 {
        peak(process::id()).unwrap().saturating_sub(self.before) >> 10
    }
}

/// The largest resident size of a process; none if it has ended.
pub(crate) fn peak_mebibytes(process: u32) -> Option<u64> {
    peak(process).map(|kibibytes| kibibytes >> 10)
}

fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
