//! Selects the run: a new or an existing one.

use std::path::Path;

use anyhow::Result;
use ssa_data::Dataset;
use ssa_train::{Checkpoint, Existing, ResumePoint, RunDir, TrainPlan};

use crate::args::TrainArgs;
use crate::display::note;

/// Parent directory of runs without a --run-dir.
const RUNS: &str = "runs";

/// The run that the arguments select.
pub(super) enum RunStart {
    /// A new run; its directory does not exist yet.
    New,
    /// A run with steps or its evaluation left to do, and its newest checkpoint, unless it ended
    /// before the first one.
    Resume(Option<Box<Checkpoint>>),
    /// A finished run.
    Finished,
}

impl RunStart {
    fn at(point: Option<ResumePoint>) -> Self {
        match point {
            None => Self::Finished,
            Some(ResumePoint { checkpoint }) => Self::Resume(checkpoint.map(Box::new)),
        }
    }

    /// Checks that the text of a resumed run is still the same.
    pub(super) fn check_text(&self, args: &TrainArgs, data: &Dataset) -> Result<()> {
        if let Self::Resume(Some(checkpoint)) = self {
            checkpoint.check_text(&data.train, &args.allow_change)?;
            checkpoint.check_held_out(data.held_out.rows(), &args.allow_change)?;
        }
        Ok(())
    }
}

/// Finds the run, and its directory if it has one. A run to resume gets the configuration of the
/// plan.
pub(super) fn find(args: &TrainArgs, plan: &TrainPlan) -> Result<(RunStart, Option<RunDir>)> {
    let resume = |run_dir: RunDir| -> Result<_> {
        let point = run_dir.resume(plan.config(), &args.allow_change)?;
        Ok((RunStart::at(point), Some(run_dir)))
    };
    if let Some(path) = &args.resume {
        return resume(RunDir::open(path)?);
    }
    let unfinished = match unfinished(args) {
        Some(path) => Some(RunDir::open(path)?),
        None if args.run_dir.is_some() => None,
        None => RunDir::open_unfinished(Path::new(RUNS), plan.config())?,
    };
    let Some(run_dir) = unfinished else { return Ok((RunStart::New, None)) };
    let path = run_dir.path().to_owned();
    let found = resume(run_dir)?;
    let path = path.display();
    note(&format!("{path} holds an unfinished run of this configuration: resuming it"));
    if args.run_dir.is_none() {
        note("hint: name a --run-dir to start another run");
    }
    Ok(found)
}

/// As [`find`] for a dry run: takes no lock, changes nothing, and does not look for runs that the
/// arguments do not name.
pub(super) fn check(args: &TrainArgs, plan: &TrainPlan) -> Result<RunStart> {
    if let Some(path) = args.resume.as_deref().or_else(|| unfinished(args)) {
        return Ok(RunStart::at(RunDir::check_resume(path, plan.config(), &args.allow_change)?));
    }
    if let Some(path) = &args.run_dir {
        RunDir::check_named(path, existing(args))?;
    }
    Ok(RunStart::New)
}

/// The directory of an unfinished run that --run-dir names and does not overwrite.
fn unfinished(args: &TrainArgs) -> Option<&Path> {
    let path = args.run_dir.as_deref()?;
    (!args.overwrite && RunDir::holds_unfinished_run(path)).then_some(path)
}

fn existing(args: &TrainArgs) -> Existing {
    if args.overwrite { Existing::Replace } else { Existing::Refuse }
}

/// Creates the directory of a new run.
pub(super) fn create(args: &TrainArgs, plan: &TrainPlan) -> Result<RunDir> {
    let run_dir = match &args.run_dir {
        Some(path) => RunDir::create_named(path, existing(args))?,
        None => RunDir::create(Path::new(RUNS), &plan.config().run.name)?,
    };
    run_dir.write_config(plan.config())?;
    Ok(run_dir)
}
