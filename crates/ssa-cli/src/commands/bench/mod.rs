//! `ssa bench`.

mod attention;
mod decode;
mod gemm;
mod record;
mod step;

use anyhow::Result;
use ssa_bench::Peaks;
use ssa_report::NONE;

use super::start;
use crate::args::{BenchArgs, BenchCommand};
use crate::display::print;

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    match &args.command {
        BenchCommand::Attention(args) => attention::run(args, start(&args.record.compute)?),
        BenchCommand::Decode(args) => decode::run(args, start(&args.record.compute)?),
        BenchCommand::Gemm(args) => gemm::run(args, start(&args.record.compute)?),
        BenchCommand::Step(args) => step::run(args, start(&args.record.compute)?),
    }
}

/// Formats a rate with at least three digits.
fn rate(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(value) if value < 1.0 => format!("{value:.3}"),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// Formats a fraction as a percentage.
fn percent(value: Option<f64>, of: f64) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{:.0} %", 100.0 * value / of))
}

fn print_peaks(peaks: &Peaks) -> Result<()> {
    print(&format!(
        "peak: {} TFLOP/s (square matrix product), {} GB/s (addition)",
        rate(Some(peaks.tflops)),
        rate(Some(peaks.gb_per_s))
    ))
}
