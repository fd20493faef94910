//! Error messages and exit codes.

mod classify;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::low_level;
use ssa_train::{RunDir, TrainPlan};

use classify::classify;

/// The exit code of a rank that has lost another one.
pub(crate) const RANK_LOST: u8 = 6;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Success,
    /// Any other failure.
    Failure,
    /// Invalid flags or configuration.
    Usage,
    /// An unusable file, checkpoint, input or output.
    Data,
    /// A loss is not finite.
    NotFinite,
    /// A signal ended a run that can be resumed.
    Interrupted,
    /// Another rank of a run was lost.
    RankLost,
}

impl Exit {
    const ALL: [Self; 7] = [
        Self::Success,
        Self::Failure,
        Self::Usage,
        Self::Data,
        Self::NotFinite,
        Self::Interrupted,
        Self::RankLost,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Data => 3,
            Self::NotFinite => 4,
            Self::Interrupted => 5,
            Self::RankLost => RANK_LOST,
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Success => "success; also if standard output is a broken pipe",
            Self::Failure => "any other failure",
            Self::Usage => "invalid flags or configuration, or not enough memory or threads",
            Self::Data => "unusable data: text, checkpoints, input or output files",
            Self::NotFinite => "a loss is not finite: the model has diverged",
            Self::Interrupted => "training was interrupted by a signal; everything is saved",
            Self::RankLost => "another rank was lost: run the same command again",
        }
    }
}

/// All exit codes with their meaning.
pub(crate) fn codes() -> impl Iterator<Item = (u8, &'static str)> {
    Exit::ALL.into_iter().map(|exit| (exit.code(), exit.meaning()))
}

/// Flags that are invalid together or with the checkpoint.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// An unusable file of the program itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FileError(pub(crate) String);

/// A result is not finite.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotFiniteError(pub(crate) String);

/// A signal ended training after a step; everything is saved.
#[derive(Debug, thiserror::Error)]
#[error("interrupted after step {step} of {steps}; {saved}")]
pub(crate) struct Interrupted {
    step: usize,
    steps: usize,
    saved: String,
}

impl Interrupted {
    pub(crate) fn after(step: usize, plan: &TrainPlan, run_dir: &RunDir) -> Self {
        let run_dir = run_dir.path().display();
        let saved =
            format!("everything is saved\nhint: resume with `ssa train --resume {run_dir}`");
        Self { step, steps: plan.steps(), saved }
    }

    /// Of a rank that has no run directory.
    pub(crate) fn by_leader(step: usize, plan: &TrainPlan) -> Self {
        Self { step, steps: plan.steps(), saved: "rank 0 saves everything".to_owned() }
    }
}

/// The rank in front of every message of this process, if it is not the one that prints.
static RANK: OnceLock<usize> = OnceLock::new();

/// Names the rank of this process in its messages.
pub(crate) fn speak_as(rank: usize) {
    // A process has one rank.
    let _ = RANK.set(rank);
}

/// The exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    classify(error).code()
}

/// The message of an error with its causes and hints, for the other ranks.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let _ = write_message(&mut text, error);
    let text = String::from_utf8_lossy(&text);
    text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned()
}

/// Prints why the program failed; returns the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let exit = classify(error);
    if exit != Exit::Success {
        let mut err = io::stderr().lock();
        // If standard error fails, the exit code still reports the error.
        let _ = RANK.get().map_or(Ok(()), |rank| write!(err, "rank {rank}: "));
        let _ = write_message(&mut err, error);
    }
    ExitCode::from(exit.code())
}

/// What helps where memory is missing.
pub(crate) const MORE_MEMORY: &str =
    "use a smaller model, or more memory (or raise its limit: ulimit -v, control groups)";

/// Ends the program after a failed allocation. Allocates nothing.
pub(crate) fn without_memory(bytes: usize) -> ! {
    static ENDS: AtomicBool = AtomicBool::new(false);
    if !ENDS.swap(true, Ordering::Relaxed) {
        let mut err = io::stderr().lock();
        let _ = RANK.get().map_or(Ok(()), |rank| write!(err, "rank {rank}: "));
        let _ = writeln!(
            err,
            "error: not enough memory: {bytes} bytes cannot be allocated\n{HINT}{MORE_MEMORY}"
        );
    }
    low_level::exit(i32::from(Exit::Usage.code()))
}

/// Writes the message of an error, one line per cause that it does not contain, and all hints, each
/// once. `docs/style.md` defines the format of errors and hints.
fn write_message(out: &mut impl Write, error: &anyhow::Error) -> io::Result<()> {
    let mut hints = Vec::new();
    let mut shown = split_hints(&error.to_string(), &mut hints);
    let prefix = if classify(error) == Exit::Interrupted { "" } else { "error: " };
    writeln!(out, "{prefix}{shown}")?;
    for cause in error.chain().skip(1) {
        let text = split_hints(&cause.to_string(), &mut hints);
        // Most errors in this workspace already contain their cause.
        if !shown.contains(&text) {
            writeln!(out, "  caused by: {text}")?;
        }
        shown = text;
    }
    hints.iter().try_for_each(|hint| writeln!(out, "{HINT}{hint}"))
}

/// The prefix of a hint line.
const HINT: &str = "hint: ";

/// The text of an error without its hint lines, which are added to `hints` once.
fn split_hints(text: &str, hints: &mut Vec<String>) -> String {
    let mut message = Vec::new();
    for line in text.lines() {
        match line.strip_prefix(HINT) {
            None => message.push(line),
            Some(hint) if hints.iter().any(|known| known == hint) => {}
            Some(hint) => hints.push(hint.to_owned()),
        }
    }
    message.join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::Context;
    use ssa_data::DataError;
    use ssa_eval::EvalError;

    use super::*;

    fn message(error: &anyhow::Error) -> String {
        let mut out = Vec::new();
        write_message(&mut out, error).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn causes_are_not_repeated() {
        let cause = || io::Error::other("disk on fire");
        let error = anyhow::Error::from(cause()).context("cannot write x");
        assert_eq!(message(&error), "error: cannot write x\n  caused by: disk on fire\n");
        let error = anyhow::Error::from(cause()).context("cannot write x: disk on fire");
        assert_eq!(message(&error), "error: cannot write x: disk on fire\n");
    }

    #[test]
    fn hints_come_last_and_once() {
        let cause = || io::Error::other("disk on fire\nhint: call the fire brigade");
        let error = anyhow::Error::from(cause()).context("cannot write x\nhint: run");
        assert_eq!(
            message(&error),
            "error: cannot write x\n  caused by: disk on fire\nhint: run\n\
             hint: call the fire brigade\n"
        );
        let error = anyhow::Error::from(cause()).context(format!("cannot write x: {}", cause()));
        assert_eq!(
            message(&error),
            "error: cannot write x: disk on fire\nhint: call the fire brigade\n"
        );
    }

    #[test]
    fn context_does_not_hide_the_kind() {
        let error = Err::<(), _>(UsageError("no".to_owned())).context("outer").unwrap_err();
        assert_eq!(classify(&error), Exit::Usage);
        let broken =
            anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("outer");
        assert_eq!(classify(&broken), Exit::Success);
        assert_eq!(classify(&anyhow::anyhow!("other")), Exit::Failure);
        let nested = EvalError::Data(DataError::Missing { path: PathBuf::new() });
        assert_eq!(classify(&nested.into()), Exit::Data);
    }
}
