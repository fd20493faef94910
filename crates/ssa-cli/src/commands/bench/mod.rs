//! `ssa bench`.

mod attention;
mod gemm;
mod record;
mod step;

use anyhow::Result;
use ssa_bench::Peaks;

use crate::args::{BenchArgs, BenchCommand, DeviceChoice};
use crate::display::print;

pub(crate) fn run(args: &BenchArgs, device: DeviceChoice) -> Result<()> {
    match &args.command {
        BenchCommand::Attention(args) => attention::run(args, device),
        BenchCommand::Gemm(args) => gemm::run(args, device),
        BenchCommand::Step(args) => step::run(args, device),
    }
}

/// What stands in a cell that has no value.
const NONE: &str = "\u{2013}";

/// A rate: three digits or more.
fn rate(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(value) if value < 1.0 => format!("{value:.3}"),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// A share as a percentage.
fn percent(value: Option<f64>, of: f64) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{:.0} %", 100.0 * value / of))
}

fn print_peaks(peaks: &Peaks) -> Result<()> {
    print(&format!(
        "at best: {} TFLOP/s (square matrix product), {} GB/s (addition)",
        rate(Some(peaks.tflops)),
        rate(Some(peaks.gb_per_s))
    ))
}
