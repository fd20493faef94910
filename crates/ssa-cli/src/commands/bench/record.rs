//! The raw numbers of a run as JSON.

use std::time::SystemTime;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use ssa_bench::Peaks;
use ssa_kernels::Device;
use ssa_kernels::cuda::Library;

use crate::args::RecordArgs;
use crate::display::note;
use crate::files::{check_writable, write_whole};

/// The numbers with their context.
#[derive(Serialize)]
struct Record<'a, S, R> {
    bench: &'static str,
    date: String,
    version: &'static str,
    commit: &'static str,
    device: String,
    card: Option<String>,
    /// Versions of the libraries: driver, compiler, matrix products.
    libraries: Vec<(&'static str, String)>,
    threads: usize,
    peaks: &'a Peaks,
    settings: S,
    results: R,
}

/// Checks before measuring that the file may be written.
pub(super) fn check(args: &RecordArgs) -> Result<()> {
    args.json.as_deref().map_or(Ok(()), |path| check_writable(path, args.overwrite))
}

/// Writes the `--json` file.
pub(super) fn write(
    args: &RecordArgs,
    bench: &'static str,
    device: &Device,
    peaks: &Peaks,
    settings: impl Serialize,
    results: impl Serialize,
) -> Result<()> {
    let Some(path) = &args.json else { return Ok(()) };
    let (card, libraries) = match device {
        Device::Cuda(gpu) => (Some(gpu.properties().name.clone()), Library::ALL.as_slice()),
        _ => (None, [].as_slice()),
    };
    let version = |library: &Library| Some((library.name(), library.status().found.ok()?.version));
    let now = Timestamp::try_from(SystemTime::now()).context("the clock has an invalid year")?;
    let record = Record {
        bench,
        date: now.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("SSA_COMMIT"),
        device: device.to_string(),
        card,
        libraries: libraries.iter().filter_map(version).collect(),
        threads: rayon::current_num_threads(),
        peaks,
        settings,
        results,
    };
    let mut json =
        serde_json::to_string_pretty(&record).context("cannot write the result as JSON")?;
    json.push('\n');
    write_whole(path, json.as_bytes())?;
    note(&format!("raw numbers: {}", path.display()));
    Ok(())
}
