//! The binary `ssa`.

mod allocator;
mod args;
mod commands;
mod display;
mod exit;
mod files;
mod signals;

use std::io::{self, Write};
use std::process::ExitCode;

use allocator::Exiting;
use anyhow::Context;
use clap::Parser;
use mimalloc::MiMalloc;

/// A training step allocates the same large buffers repeatedly. The system allocator returns each
/// one to the kernel and faults it in again page by page, which took a tenth of the demo's CPU
/// time.
#[global_allocator]
static ALLOCATOR: Exiting<MiMalloc> = Exiting(MiMalloc);

fn main() -> ExitCode {
    allocator::share_c_heap();
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap reports help and version as errors that go to standard output and exit with 0.
            let error = args::with_hint(error);
            let printed = error.print().and_then(|()| io::stdout().flush());
            return match printed.context("cannot write to standard output") {
                Err(failure) if !error.use_stderr() => exit::report(&failure),
                _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
            };
        }
    };
    let run =
        signals::ignore_file_size_limit().map_err(Into::into).and_then(|()| commands::run(cli));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
