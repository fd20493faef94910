//! What is known about a step that is not finite.

use std::fmt;

use ssa_data::RowPlace;

/// Rows named in a message before the rest is counted.
const ROWS_SHOWN: usize = 8;

/// A step whose loss or gradient is not a number.
#[derive(Clone, Debug, PartialEq)]
pub struct BadStep {
    /// The step, counted from 1.
    pub step: usize,
    /// What is not finite.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
    /// Where its rows come from.
    pub rows: Vec<RowPlace>,
}

/// Why a run cannot continue: bad steps that neither skipping rows nor rolling back to a checkpoint
/// ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// The last bad step.
    pub bad: BadStep,
    /// Bad steps in a row.
    pub in_row: usize,
    /// Step of the checkpoint that the run was rolled back to; none if there was no checkpoint.
    pub rolled_back_to: Option<usize>,
    /// The first bad value in the order of computation.
    pub place: String,
}

impl fmt::Display for BadStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {} is {} on {}", self.step, self.what, self.value, row_list(&self.rows))
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let back = match self.rolled_back_to {
            Some(step) => format!("also after rolling back to the checkpoint of step {step}"),
            None => "and there is no checkpoint to roll back to".to_owned(),
        };
        write!(
            f,
            "{}; {} bad steps in a row, {back}; the first bad value is in {}. The weights are \
             those before the bad steps",
            self.bad, self.in_row, self.place
        )
    }
}

pub(crate) fn row_list(rows: &[RowPlace]) -> String {
    let shown: Vec<String> = rows.iter().take(ROWS_SHOWN).map(name).collect();
    let more = match rows.len().saturating_sub(ROWS_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("row{} {}{more}", if rows.len() == 1 { "" } else { "s" }, shown.join(", "))
}

/// A row by its number, and where there are several corpora by that of the corpus. The first corpus
/// has number 0, as rows have.
fn name(place: &RowPlace) -> String {
    match place.corpus {
        0 => place.row.to_string(),
        corpus => format!("{} of corpus {corpus}", place.row),
    }
}
