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

fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.decimals$}"))
}

/// A share as a percentage.
fn percent(value: Option<f64>, of: f64) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{:.0} %", 100.0 * value / of))
}

fn print_peaks(peaks: &Peaks) -> Result<()> {
    print(&format!(
        "at best: {:.1} TFLOP/s (square matrix product), {:.0} GB/s (addition)",
        peaks.tflops, peaks.gb_per_s
    ))
}
