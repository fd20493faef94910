//! `ssa compare`: the units of a grid one after another, then the tables.

mod tables;
mod units;

use std::path::{Path, PathBuf};

use anyhow::Result;
use ssa_eval::EvalError;
use ssa_ranks::World;
use ssa_report::number::counted;
use ssa_train::{Grid, Progress, TrainError, Unit};

use super::train;
use crate::args::{CompareArgs, DeviceChoice, TrainArgs};
use crate::display::note;
use crate::exit::{self, UsageError};
use units::Units;

/// Parent directory of comparisons without an --output.
const RUNS: &str = "runs";

/// A unit without results, and why.
struct Missing {
    unit: String,
    reason: anyhow::Error,
}

pub(crate) fn run(args: &CompareArgs, choice: DeviceChoice) -> Result<()> {
    let grid = Grid::load(&args.grid, &args.overrides)?;
    let name = args.grid.file_stem().unwrap_or_default();
    let output = args.output.clone().unwrap_or_else(|| Path::new(RUNS).join(name));
    // All runs are checked before the first one is trained.
    let units = Units::new(&grid, output)?;
    if args.list {
        return units.list();
    }
    if let Some(number) = args.only {
        let Some(unit) = units.all().get(number - 1) else {
            let count = counted(units.all().len(), "unit");
            let message = format!("--only {number}: the grid has {count}\nhint: see --list");
            return Err(UsageError(message).into());
        };
        return train(args, choice, unit, &units);
    }
    let mut missing = Vec::new();
    for (index, unit) in units.all().iter().enumerate() {
        note(&format!("unit {} of {}: {}", index + 1, units.all().len(), Units::name(unit)));
        if let Err(reason) = train(args, choice, unit, &units) {
            if !is_of_one_unit(&reason) {
                return Err(reason);
            }
            note(&format!("warning: {}", exit::message(&reason)));
            missing.push(Missing { unit: Units::name(unit), reason });
        }
    }
    tables::write(&grid, &units, &missing)?;
    match missing.into_iter().next() {
        None => Ok(()),
        Some(Missing { unit, reason }) => {
            let text = format!("the comparison lacks {unit}: {reason}");
            Err(reason.context(text))
        }
    }
}

/// Trains and evaluates a unit, unless it is finished.
fn train(args: &CompareArgs, choice: DeviceChoice, unit: &Unit, units: &Units) -> Result<()> {
    let directory: PathBuf = unit.directory(units.output());
    if units.progress(unit)? == Progress::Finished {
        note(&format!("{}: this unit is finished", directory.display()));
        return Ok(());
    }
    let plan = unit.plan()?;
    let run = TrainArgs::in_directory(directory, args.plain, args.compute.clone());
    train::run_plan(&run, &plan, choice, World::alone())
}

/// Whether other units can still be trained: this one has diverged, or another process trains it.
fn is_of_one_unit(error: &anyhow::Error) -> bool {
    let of_training = matches!(
        error.downcast_ref(),
        Some(TrainError::Diverged(_) | TrainError::NotFinite { .. } | TrainError::Locked { .. })
    );
    of_training || matches!(error.downcast_ref(), Some(EvalError::NotFinite { .. }))
}
