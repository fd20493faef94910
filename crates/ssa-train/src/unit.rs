//! The units of a grid: single runs, which can be trained in any order and on any machine.

use std::path::{Path, PathBuf};

use crate::config::{Grid, GridRun, TrainConfig};
use crate::{Result, TrainPlan};

/// A run of a grid with one of its seeds.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The index of its run in the grid.
    pub run: usize,
    /// Its seed.
    pub seed: u64,
    /// Its configuration; `run.name` is the name of the run.
    pub config: TrainConfig,
}

impl Grid {
    /// The units: all runs with the first seed, then with the next one. A new seed at the end of
    /// the list leaves the numbers of the others unchanged.
    ///
    /// # Errors
    /// As [`TrainConfig::load_new`].
    pub fn units(&self) -> Result<Vec<Unit>> {
        let unit = |seed: u64, (index, run): (usize, &GridRun)| {
            let own = [format!("run.name={:?}", run.name), format!("run.seed={seed}")];
            let overrides = [&self.shared, &run.settings, &own[..]].concat();
            let config = TrainConfig::load_new(&self.config, &overrides)?;
            Ok(Unit { run: index, seed, config })
        };
        let of_seed = |&seed| self.runs.iter().enumerate().map(move |run| unit(seed, run));
        self.seeds.iter().flat_map(of_seed).collect()
    }
}

impl Unit {
    /// The directory of the unit in that of the comparison.
    pub fn directory(&self, comparison: &Path) -> PathBuf {
        comparison.join(format!("{}-seed{}", self.config.run.name, self.seed))
    }

    /// The plan of the unit.
    ///
    /// # Errors
    /// As [`TrainPlan::new`].
    pub fn plan(&self) -> Result<TrainPlan> {
        Ok(TrainPlan::new(self.config.clone())?)
    }
}
