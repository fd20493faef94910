//! Selects the run: a new or an existing one.

use std::path::Path;

use anyhow::Result;
use ssa_train::{Checkpoint, Existing, RunDir, TrainPlan};

use crate::args::TrainArgs;
use crate::display::note;

/// Parent directory of runs without a --run-dir.
const RUNS: &str = "runs";

/// The run that the arguments select.
pub(super) enum RunStart {
    /// A new run; its directory does not exist yet.
    New,
    /// A run with steps or its evaluation left to do.
    Resume(Box<Resume>),
    /// A finished run.
    Finished,
}

/// A run to resume. It has the configuration of the plan.
pub(super) struct Resume {
    pub(super) run_dir: RunDir,
    /// `None` if the run ended before its first checkpoint.
    pub(super) checkpoint: Option<Checkpoint>,
}

/// Finds the run. A run to resume gets the configuration of the plan.
pub(super) fn find(args: &TrainArgs, plan: &TrainPlan) -> Result<RunStart> {
    if let Some(path) = &args.resume {
        return resume(args, plan, RunDir::open(path)?);
    }
    let unfinished = match &args.run_dir {
        Some(path) if !args.overwrite && RunDir::holds_unfinished_run(path) => {
            Some(RunDir::open(path)?)
        }
        Some(_) => None,
        None => RunDir::open_unfinished(Path::new(RUNS), plan.config())?,
    };
    let Some(run_dir) = unfinished else { return Ok(RunStart::New) };
    let path = run_dir.path().display();
    note(&format!("{path} holds an unfinished run of this configuration: resuming it"));
    if args.run_dir.is_none() {
        note("hint: name a --run-dir to start another run");
    }
    resume(args, plan, run_dir)
}

fn resume(args: &TrainArgs, plan: &TrainPlan, run_dir: RunDir) -> Result<RunStart> {
    Ok(match run_dir.resume(plan.config(), &args.allow_change)? {
        None => RunStart::Finished,
        Some(point) => {
            let checkpoint = point.checkpoint;
            RunStart::Resume(Box::new(Resume { run_dir, checkpoint }))
        }
    })
}

/// Creates the directory of a new run.
pub(super) fn create(args: &TrainArgs, plan: &TrainPlan) -> Result<RunDir> {
    let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
    let run_dir = match &args.run_dir {
        Some(path) => RunDir::create_named(path, existing)?,
        None => RunDir::create(Path::new(RUNS), &plan.config().run.name)?,
    };
    run_dir.write_config(plan.config())?;
    Ok(run_dir)
}
