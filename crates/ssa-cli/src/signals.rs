//! SIGTERM and SIGINT during training: the first one saves and ends the run, the second one ends
//! the program immediately. SIGINT in a conversation ends an answer. SIGXFSZ is ignored.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// The offset of exit codes for signals.
const BY_SIGNAL: i32 = 128;

/// Turns a write beyond the file size limit (`ulimit -f`) into an error, as on a full disk, instead
/// of killing the process.
pub(crate) fn ignore_file_size_limit() -> io::Result<()> {
    // The handler sets an unused flag.
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// The flag of all [`Signals`]: handlers stay for the whole process.
static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Caught signals.
pub(crate) struct Signals {
    requested: Arc<AtomicBool>,
}

impl Signals {
    /// Catches the next signal, also if an earlier training in this process ended.
    pub(crate) fn catch() -> Result<Self> {
        if let Some(requested) = REQUESTED.get() {
            requested.store(false, Ordering::SeqCst);
            return Ok(Self { requested: requested.clone() });
        }
        let requested = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the first signal finds the flag unset and sets it for the second.
            flag::register_conditional_shutdown(signal, BY_SIGNAL + signal, requested.clone())
                .and_then(|_| flag::register(signal, requested.clone()))
                .with_context(|| format!("cannot catch signal {signal}"))?;
        }
        Ok(Self { requested: REQUESTED.get_or_init(|| requested).clone() })
    }

    /// The flag that is set once the program should save and end.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        self.requested.clone()
    }

    /// Whether the program should save and end.
    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Makes the next signal end the program immediately.
    pub(crate) fn end_immediately(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }
}

/// SIGINT in a conversation: ends the answer that is being written, and the program before it.
pub(crate) struct AnswerInterrupt {
    idle: Arc<AtomicBool>,
    requested: Arc<AtomicBool>,
}

impl AnswerInterrupt {
    pub(crate) fn catch() -> Result<Self> {
        let (idle, requested) = (Arc::new(AtomicBool::new(true)), Arc::default());
        flag::register_conditional_shutdown(SIGINT, BY_SIGNAL + SIGINT, Arc::clone(&idle))
            .and_then(|_| flag::register(SIGINT, Arc::clone(&requested)))
            .context("cannot catch SIGINT")?;
        Ok(Self { idle, requested })
    }

    /// An answer begins.
    pub(crate) fn begin(&self) {
        self.requested.store(false, Ordering::SeqCst);
        self.idle.store(false, Ordering::SeqCst);
    }

    /// An answer ended.
    pub(crate) fn end(&self) {
        self.idle.store(true, Ordering::SeqCst);
    }

    /// Whether the answer should end.
    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }
}
