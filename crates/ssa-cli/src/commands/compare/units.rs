//! The units of a grid with their directories and states.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use ssa_report::{Column, Row, Table};
use ssa_train::config::Difference;
use ssa_train::{Grid, Progress, RunDir, TrainConfig, Unit};

use crate::commands::train::{check_evaluation, require_data};
use crate::display::{print, render};
use crate::exit::UsageError;

/// The units of a grid, checked.
pub(super) struct Units {
    units: Vec<Unit>,
    output: PathBuf,
    /// Whether all runs have the same tokenizer.
    same_tokens: bool,
}

impl Units {
    /// The units, whose runs can be planned, and whose directories are new or hold these units.
    pub(super) fn new(grid: &Grid, output: PathBuf) -> Result<Self> {
        let units = grid.units()?;
        let mut tokenizers = Vec::new();
        // A seed changes nothing about a plan.
        for unit in &units[..grid.runs.len()] {
            let name = &unit.config.run.name;
            let named = |error: Error| {
                let message = format!("{}, run `{name}`: {error}", grid.path.display());
                error.context(message)
            };
            let plan = unit.plan().map_err(|error| named(error.into()))?;
            check_evaluation(&plan).and_then(|()| require_data(&plan)).map_err(named)?;
            tokenizers.push(plan.tokenizer().sha256().map(str::to_owned));
        }
        tokenizers.dedup();
        let units = Self { units, output, same_tokens: tokenizers.len() == 1 };
        units.units.iter().try_for_each(|unit| units.check_unchanged(unit))?;
        Ok(units)
    }

    /// All units in the order of their numbers, which start at 1.
    pub(super) fn all(&self) -> &[Unit] {
        &self.units
    }

    /// The directory of the comparison.
    pub(super) fn output(&self) -> &Path {
        &self.output
    }

    /// Whether all runs have the same tokenizer.
    pub(super) fn same_tokens(&self) -> bool {
        self.same_tokens
    }

    /// Run and seed of a unit.
    pub(super) fn name(unit: &Unit) -> String {
        format!("{}, seed {}", unit.config.run.name, unit.seed)
    }

    /// How far a unit is.
    pub(super) fn progress(&self, unit: &Unit) -> Result<Progress> {
        Ok(RunDir::progress_of(&unit.directory(&self.output))?)
    }

    /// Refuses a unit whose directory holds a run with other settings.
    fn check_unchanged(&self, unit: &Unit) -> Result<()> {
        if self.progress(unit)? == Progress::New {
            return Ok(());
        }
        let path = RunDir::config_path_of(&unit.directory(&self.output))?;
        let differences = unit.config.differences(&TrainConfig::load(&path, &[])?);
        if differences.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = differences.iter().map(Difference::to_string).collect();
        Err(UsageError(format!(
            "{}: the unit was started with other settings: {}\nhint: restore the settings, or \
             name another --output",
            path.display(),
            list.join("; ")
        ))
        .into())
    }

    /// Prints the units with their states.
    pub(super) fn list(&self) -> Result<()> {
        let columns = vec![
            Column::number("unit"),
            Column::text("run"),
            Column::number("seed"),
            Column::text("state"),
            Column::text("directory").rank(1),
        ];
        let row = |(index, unit): (usize, &Unit)| {
            let state = match self.progress(unit)? {
                Progress::New => "new".to_owned(),
                Progress::Unfinished { step } => {
                    format!("unfinished, step {step} of {}", unit.config.training.steps)
                }
                Progress::Finished => "finished".to_owned(),
            };
            Ok(Row::new(vec![
                (index + 1).to_string(),
                unit.config.run.name.clone(),
                unit.seed.to_string(),
                state,
                unit.directory(&self.output).display().to_string(),
            ]))
        };
        let rows = self.units.iter().enumerate().map(row).collect::<Result<Vec<_>>>()?;
        print(&render(&Table::new(columns, rows)))
    }
}
