//! `ssa selftest`.

use anyhow::Result;
use ssa_kernels::Device;
use ssa_report::number::counted;
use ssa_report::{Column, Row, Table};
use ssa_selftest::Outcome;
use ssa_selftest::golden::{GoldenError, run_golden};

use super::device;
use crate::args::{DeviceChoice, SelftestArgs};
use crate::display::{note, print, render};
use crate::exit::{FileError, UsageError};

pub(crate) fn run(args: &SelftestArgs, choice: DeviceChoice) -> Result<()> {
    let device = device::open(choice)?;
    note(&match &device {
        Device::Cuda(gpu) => format!("testing {device}, {}", gpu.properties().name),
        _ => format!("testing {device}"),
    });
    let mut shown = Ok(());
    let mut observe = |outcome: &Outcome| {
        if (args.verbose || !outcome.passed()) && shown.is_ok() {
            shown = print(&line(outcome));
        }
    };
    let mut outcomes = ssa_selftest::run(&device, &args.filter, &mut observe)?;
    if let Some(directory) = &args.golden {
        outcomes.extend(run_golden(&device, directory, &mut observe).map_err(golden_error)?);
    }
    shown?;
    if outcomes.is_empty() {
        return Err(UsageError(format!(
            "--filter: no check has `{}` in its name\nhint: leave out --filter to run all checks",
            args.filter
        ))
        .into());
    }
    print(&render(&table(&outcomes)))?;
    let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    print(&format!("{} passed, {failed} failed", outcomes.len() - failed))?;
    anyhow::ensure!(failed == 0, "{} failed on {device}", counted(failed, "check"));
    Ok(())
}

/// A directory without golden cases is a file error; a failing device is not.
fn golden_error(error: GoldenError) -> anyhow::Error {
    match error {
        GoldenError::File(problem) => FileError(problem).into(),
        GoldenError::Model(error) => error.into(),
    }
}

/// One row per op: its worst comparison.
fn table(outcomes: &[Outcome]) -> Table {
    let columns = vec![
        Column::text("op"),
        Column::number("checks").rank(1),
        Column::number("failed"),
        Column::number("error"),
        Column::number("allowed"),
        Column::text("worst comparison").rank(2),
    ];
    let groups = outcomes.chunk_by(|left, right| left.op == right.op);
    Table::new(columns, groups.filter_map(row))
}

fn row(group: &[Outcome]) -> Option<Row> {
    let worst = group.iter().max_by(|a, b| a.share().total_cmp(&b.share()))?;
    let failed = group.iter().filter(|outcome| !outcome.passed()).count();
    let cells = vec![
        worst.op.to_string(),
        group.len().to_string(),
        failed.to_string(),
        format!("{:.2e}", worst.error),
        format!("{:.2e}", worst.allowed),
        format!("{}: {}", worst.case, worst.what),
    ];
    Some(Row::new(cells).emphasized(failed > 0))
}

fn line(outcome: &Outcome) -> String {
    let result = if outcome.passed() { "ok    " } else { "FAILED" };
    let Outcome { op, case, what, error, allowed } = outcome;
    format!("{result} {op} {case}: {what}: error {error:.3e}, allowed {allowed:.3e}")
}
