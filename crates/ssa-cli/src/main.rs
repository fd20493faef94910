//! The binary `ssa`.

mod args;
mod commands;
mod display;
mod exit;
mod files;
mod signals;

use std::process::ExitCode;

use clap::Parser;

/// A training step allocates the same large buffers over and over. The system's allocator gives
/// each back to the kernel and gets it again page by page, which took a tenth of the demo's
/// processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" that exit with 0. A reader that has gone is none.
            let error = args::with_hint(error);
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let run =
        signals::ignore_file_size_limit().map_err(Into::into).and_then(|()| commands::run(cli));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
