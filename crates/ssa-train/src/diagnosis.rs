//! Diagnosis of a step with a non-finite loss or gradient.

use std::fmt;

use ssa_data::RowId;

/// Number of rows named in a message; the rest are counted.
const ROWS_SHOWN: usize = 8;

/// A step with a non-finite loss or gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct BadStep {
    /// The step, counted from 1.
    pub step: usize,
    /// What is not finite.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
    /// The source of its rows.
    pub rows: Vec<RowId>,
}

/// Why a run cannot continue: neither skipping rows nor rolling back to a checkpoint ended the bad
/// steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// The last bad step.
    pub bad: BadStep,
    /// Bad steps in a row.
    pub in_row: usize,
    /// Step of the checkpoint that the run was rolled back to; `None` without a checkpoint.
    pub rolled_back_to: Option<usize>,
    /// The location of the first bad value in the order of computation.
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

pub(crate) fn row_list(rows: &[RowId]) -> String {
    let shown: Vec<String> = rows.iter().take(ROWS_SHOWN).map(name).collect();
    let more = match rows.len().saturating_sub(ROWS_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("row{} {}{more}", if rows.len() == 1 { "" } else { "s" }, shown.join(", "))
}

/// Formats a row number, with the corpus number if there are several corpora. Both start at 0.
fn name(id: &RowId) -> String {
    match id.corpus {
        0 => id.row.to_string(),
        corpus => format!("{} of corpus {corpus}", id.row),
    }
}
