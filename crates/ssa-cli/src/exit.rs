//! From errors to messages and exit codes.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use ssa_data::DataError;
use ssa_eval::EvalError;
use ssa_model::ModelError;
use ssa_train::{ConfigError, RunDir, TrainError, TrainPlan};

/// What the exit code tells a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Nobody reads the output any more: no failure, and nobody to tell.
    BrokenPipe,
    /// Any other failure.
    Failure,
    /// Flags or configuration are wrong.
    Usage,
    /// A file, checkpoint, input or output is unusable.
    Data,
    /// A loss is not finite.
    NotFinite,
    /// A signal ended a run that can be continued.
    Interrupted,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Data => 3,
            Self::NotFinite => 4,
            Self::Interrupted => 5,
        }
    }
}

/// Flags that are each right but do not fit together, or not to the checkpoint.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// A file that the program itself reads or writes is unusable.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FileError(pub(crate) String);

/// A result is not finite.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotFiniteError(pub(crate) String);

/// A signal ended training after a step; everything is saved.
#[derive(Debug, thiserror::Error)]
#[error(
    "interrupted after step {step} of {steps}; everything is saved, continue with: ssa train --resume {}",
    run_dir.display()
)]
pub(crate) struct Interrupted {
    run_dir: PathBuf,
    step: usize,
    steps: usize,
}

impl Interrupted {
    pub(crate) fn after(step: usize, plan: &TrainPlan, run_dir: &RunDir) -> Self {
        Self { run_dir: run_dir.path().to_owned(), step, steps: plan.steps() }
    }
}

/// Tells the user why the program failed; returns the code to exit with.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let exit = classify(error);
    if exit != Exit::BrokenPipe {
        // With nowhere to write to, the code still tells.
        let _ = write_message(&mut io::stderr().lock(), error);
    }
    ExitCode::from(exit.code())
}

fn write_message(out: &mut impl Write, error: &anyhow::Error) -> io::Result<()> {
    let mut told = error.to_string();
    let what = if classify(error) == Exit::Interrupted { "" } else { "error: " };
    writeln!(out, "{what}{told}")?;
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Most errors of this workspace already contain their cause.
        if !told.contains(&text) {
            writeln!(out, "  caused by: {text}")?;
        }
        told = text;
    }
    Ok(())
}

/// The first error of the chain whose kind is known decides.
fn classify(error: &anyhow::Error) -> Exit {
    error.chain().find_map(kind).unwrap_or(Exit::Failure)
}

fn kind(error: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(error) = error.downcast_ref::<TrainError>() {
        return Some(train_kind(error));
    }
    if let Some(error) = error.downcast_ref::<EvalError>() {
        return Some(eval_kind(error));
    }
    if let Some(error) = error.downcast_ref::<ModelError>() {
        return Some(model_kind(error));
    }
    if let Some(error) = error.downcast_ref::<DataError>() {
        return Some(data_kind(error));
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        let broken = error.kind() == io::ErrorKind::BrokenPipe;
        return Some(if broken { Exit::BrokenPipe } else { Exit::Data });
    }
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return Some(config_kind(error));
    }
    if error.is::<Interrupted>() {
        return Some(Exit::Interrupted);
    }
    if error.is::<UsageError>() {
        return Some(Exit::Usage);
    }
    if error.is::<NotFiniteError>() {
        return Some(Exit::NotFinite);
    }
    (error.is::<FileError>() || error.is::<ssa_files::FileError>()).then_some(Exit::Data)
}

fn config_kind(error: &ConfigError) -> Exit {
    match error {
        ConfigError::Data(error) => data_kind(error),
        _ => Exit::Usage,
    }
}

fn train_kind(error: &TrainError) -> Exit {
    match error {
        TrainError::NotFinite { .. } | TrainError::Diverged(_) => Exit::NotFinite,
        TrainError::InitFrom { .. }
        | TrainError::Vocabulary { .. }
        | TrainError::Exists { .. }
        | TrainError::NotARun { .. }
        | TrainError::NoRun { .. }
        | TrainError::Locked { .. }
        | TrainError::ConfigChanged { .. }
        | TrainError::Config(_) => Exit::Usage,
        TrainError::File(_)
        | TrainError::LockLost { .. }
        | TrainError::Checkpoint(_)
        | TrainError::CheckpointNotSaved { .. }
        | TrainError::Metrics { .. } => Exit::Data,
        TrainError::Model(error) => model_kind(error),
        TrainError::Data(error) => data_kind(error),
        _ => Exit::Failure,
    }
}

fn eval_kind(error: &EvalError) -> Exit {
    match error {
        EvalError::NotFinite { .. } => Exit::NotFinite,
        EvalError::NoTargets | EvalError::File(_) => Exit::Data,
        EvalError::Model(error) => model_kind(error),
        EvalError::Data(error) => data_kind(error),
        _ => Exit::Failure,
    }
}

fn model_kind(error: &ModelError) -> Exit {
    match error {
        ModelError::UnknownName { .. }
        | ModelError::Options { .. }
        | ModelError::Budget { .. }
        | ModelError::Selection { .. } => Exit::Usage,
        // An op that refuses its arguments behind all checks is a defect of the program.
        ModelError::Kernel(_) => Exit::Failure,
        _ => Exit::Data,
    }
}

fn data_kind(error: &DataError) -> Exit {
    match error {
        DataError::Setting { .. }
        | DataError::NoPaths
        | DataError::Exists { .. }
        | DataError::PreparationChanged { .. } => Exit::Usage,
        _ => Exit::Data,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn message(error: &anyhow::Error) -> String {
        let mut out = Vec::new();
        write_message(&mut out, error).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_chain_is_told_without_repetition() {
        let cause = || io::Error::other("disk on fire");
        let error = anyhow::Error::from(cause()).context("cannot write x");
        assert_eq!(message(&error), "error: cannot write x\n  caused by: disk on fire\n");
        let error = anyhow::Error::from(cause()).context("cannot write x: disk on fire");
        assert_eq!(message(&error), "error: cannot write x: disk on fire\n");
    }

    #[test]
    fn context_does_not_hide_the_kind() {
        let error = Err::<(), _>(UsageError("no".to_owned())).context("outer").unwrap_err();
        assert_eq!(classify(&error), Exit::Usage);
        let broken =
            anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("outer");
        assert_eq!(classify(&broken), Exit::BrokenPipe);
        assert_eq!(classify(&anyhow::anyhow!("other")), Exit::Failure);
        let nested = EvalError::Data(DataError::NoText);
        assert_eq!(classify(&nested.into()), Exit::Data);
    }
}
