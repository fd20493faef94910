//! The tables of the finished units.

use anyhow::{Context, Result};
use ssa_eval::Summary;
use ssa_eval::comparison::{ComparedRun, Comparison};
use ssa_eval::report::render_comparison;
use ssa_train::{Grid, Progress, RunDir};

use super::Missing;
use super::units::Units;
use crate::display::{print, render};
use crate::exit;

/// The files that `ssa compare` writes are named this, with an ending for each format.
const NAME: &str = "comparison";

/// Writes the tables in every format, and prints them.
pub(super) fn write(grid: &Grid, units: &Units, missing: &[Missing]) -> Result<()> {
    let name = grid.path.file_stem().unwrap_or_default().to_string_lossy();
    let runs = compared(grid, units)?;
    let comparison = Comparison::new(
        format!("Comparison {name}"),
        &runs,
        units.same_tokens(),
        notes(units, missing),
    );
    let source = ssa_files::read_to_string(&grid.path)
        .with_context(|| format!("cannot read {}", grid.path.display()))?;
    let files = [
        ("txt", comparison.to_text(|table| table.to_text(None))),
        ("md", comparison.to_markdown()),
        ("csv", comparison.to_csv()),
        ("html", render_comparison(&comparison, &source)?),
    ];
    let path = |ending: &str| units.output().join(format!("{NAME}.{ending}"));
    for (ending, text) in files {
        ssa_files::write(&path(ending), text)?;
    }
    ssa_files::write_json(&path("json"), &comparison)?;
    print(comparison.to_text(render).trim_end())?;
    print(&format!("comparison: {}", path("html").display()))
}

/// The runs with the summaries of their finished units.
fn compared(grid: &Grid, units: &Units) -> Result<Vec<ComparedRun>> {
    let empty = grid.runs.iter().map(|run| ComparedRun {
        name: run.name.clone(),
        settings: run.settings.clone(),
        summaries: Vec::new(),
    });
    let mut runs: Vec<ComparedRun> = empty.collect();
    for unit in units.all() {
        if units.progress(unit)? == Progress::Finished {
            let path = RunDir::summary_of(&unit.directory(units.output()));
            runs[unit.run].summaries.push(Summary::read(&path)?);
        }
    }
    Ok(runs)
}

/// What limits the comparison.
fn notes(units: &Units, missing: &[Missing]) -> Vec<String> {
    let mut notes = Vec::new();
    if !units.same_tokens() {
        notes.push(
            "The runs have different tokenizers: only bits per byte are compared, because all \
             other metrics depend on the tokens."
                .to_owned(),
        );
    }
    let keys = text_keys(units);
    if !keys.is_empty() {
        notes.push(format!(
            "The runs differ in {}: they are not measured on the same rows.",
            keys.join(", ")
        ));
    }
    for Missing { unit, reason } in missing {
        let reason = exit::message(reason);
        let first = reason.lines().next().unwrap_or_default();
        notes.push(format!("There are no results of {unit}: {first}"));
    }
    notes
}

/// The keys in which runs differ and that select the text or the rows to measure on.
fn text_keys(units: &Units) -> Vec<String> {
    let Some((first, others)) = units.all().split_first() else { return Vec::new() };
    let same_text = ["data.tokenizer", "data.packing", "data.verify_checksums"];
    let selects = |key: &str| {
        key == "evaluation.tokens" || key.starts_with("data.") && !same_text.contains(&key)
    };
    let mut keys = Vec::new();
    for unit in others {
        let differences = unit.config.differences(&first.config).into_iter();
        for key in differences.map(|difference| difference.key).filter(|key| selects(key)) {
            let key = format!("`{key}`");
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}
