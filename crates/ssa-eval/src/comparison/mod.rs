//! Runs side by side: the paper's tables with mean and spread over seeds.
//!
//! Every cell is the mean over the seeds of a run and the sample standard deviation, `sqrt(sum (x -
//! mean)^2 / (n - 1))`. The tables hold nothing that depends on time or machine, so the same runs
//! give the same tables.

mod metrics;
mod spread;
#[cfg(test)]
mod tests;
mod text;

use serde::Serialize;

use crate::Summary;

pub use metrics::{MetricRow, MetricTable};
pub use spread::Spread;

/// The column of full attention.
pub const FULL: &str = "full";
/// The column of sparse attention at the budget of each run.
pub const OWN_BUDGET: &str = "own budget";

/// A run with the summaries of its finished seeds.
#[derive(Clone, Debug)]
pub struct ComparedRun {
    /// The name.
    pub name: String,
    /// The keys that only this run sets, as `section.key=value`.
    pub settings: Vec<String>,
    /// One summary per finished seed.
    pub summaries: Vec<Summary>,
}

/// A comparison of runs.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The title.
    pub title: String,
    /// What limits the comparison, such as runs that are missing.
    pub notes: Vec<String>,
    /// The runs.
    pub runs: Vec<RunFacts>,
    /// The tables; without those that have no value.
    pub tables: Vec<MetricTable>,
}

/// What a run is, besides its measurements.
#[derive(Clone, Debug, Serialize)]
pub struct RunFacts {
    /// The name.
    pub name: String,
    /// The keys that only this run sets.
    pub settings: Vec<String>,
    /// Each finished seed.
    pub seeds: Vec<SeedFacts>,
}

/// How a run with one seed was trained.
#[derive(Clone, Debug, Serialize)]
pub struct SeedFacts {
    /// The seed.
    pub seed: u64,
    /// The attention method.
    pub method: String,
    /// Parameters of the model.
    pub parameters: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens read in training.
    pub train_tokens: u64,
    /// Seconds of training.
    pub train_seconds: f64,
    /// The device.
    pub device: String,
    /// Version and commit of the program.
    pub program: String,
}

impl Comparison {
    /// Compares runs; differences are from the first one. Without `same_tokens`, the tokenizers of
    /// the runs differ: then only bits per byte are compared, which do not depend on tokens.
    pub fn new(
        title: impl Into<String>,
        runs: &[ComparedRun],
        same_tokens: bool,
        notes: Vec<String>,
    ) -> Self {
        Self {
            title: title.into(),
            notes,
            runs: runs.iter().map(facts).collect(),
            tables: metrics::tables(runs, same_tokens),
        }
    }

    /// The table of a metric.
    pub fn table(&self, metric: &str) -> Option<&MetricTable> {
        self.tables.iter().find(|table| table.metric == metric)
    }
}

fn facts(run: &ComparedRun) -> RunFacts {
    let seed = |summary: &Summary| SeedFacts {
        seed: summary.seed,
        method: summary.method.to_string(),
        parameters: summary.parameters,
        steps: summary.steps,
        train_tokens: summary.train_tokens,
        train_seconds: summary.train_seconds,
        device: summary.device.clone(),
        program: format!("ssa {} ({})", summary.version, summary.commit),
    };
    RunFacts {
        name: run.name.clone(),
        settings: run.settings.clone(),
        seeds: run.summaries.iter().map(seed).collect(),
    }
}
