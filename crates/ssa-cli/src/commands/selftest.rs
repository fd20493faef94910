//! `ssa selftest`.

use anyhow::Result;
use ssa_kernels::Device;
use ssa_selftest::Outcome;
use ssa_selftest::golden::{GoldenError, run_golden};

use super::device;
use crate::args::{DeviceChoice, SelftestArgs};
use crate::display::{note, print};
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
            "no check has `{}` in its name; leave out --filter to run all",
            args.filter
        ))
        .into());
    }
    print(&format!(
        "{:24} {:>6} {:>6}  {:>10} {:>10}  worst",
        "op", "checks", "failed", "error", "allowed"
    ))?;
    let mut rest = outcomes.as_slice();
    while let Some(first) = rest.first() {
        let (group, others) =
            rest.split_at(rest.iter().take_while(|outcome| outcome.op == first.op).count());
        rest = others;
        print(&summary(group, first))?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    print(&format!("{} passed, {failed} failed", outcomes.len() - failed))?;
    anyhow::ensure!(failed == 0, "{failed} checks failed on {device}");
    Ok(())
}

/// A directory that is no golden directory is a wrong file; a device that fails is neither.
fn golden_error(error: GoldenError) -> anyhow::Error {
    match error {
        GoldenError::File(problem) => FileError(problem).into(),
        GoldenError::Model(error) => error.into(),
    }
}

/// The line of an op: its worst comparison.
fn summary(group: &[Outcome], first: &Outcome) -> String {
    let failed = group.iter().filter(|outcome| !outcome.passed()).count();
    let worst = group.iter().max_by(|a, b| a.share().total_cmp(&b.share())).unwrap_or(first);
    format!(
        "{:24} {:6} {failed:6}  {:10.2e} {:10.2e}  {}: {}",
        first.op,
        group.len(),
        worst.error,
        worst.allowed,
        worst.case,
        worst.what
    )
}

fn line(outcome: &Outcome) -> String {
    let result = if outcome.passed() { "ok    " } else { "FAILED" };
    let Outcome { op, case, what, error, allowed } = outcome;
    format!("{result} {op} {case}: {what}: error {error:.3e}, allowed {allowed:.3e}")
}
