//! Results on standard output.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use serde::Serialize;
use ssa_report::Table;
use terminal_size::{Width, terminal_size_of};

/// Prints a text and a newline.
///
/// # Errors
/// On a broken pipe, or if a redirection writes to a full disk; `println!` would panic.
pub(crate) fn print(text: &str) -> Result<()> {
    write_bytes(format!("{text}\n").as_bytes())
}

/// Prints a value as indented JSON.
///
/// # Errors
/// Same as [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value).context("cannot write the result as JSON")?)
}

/// Writes raw bytes.
///
/// # Errors
/// Same as [`print()`].
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Renders a table for standard output: as wide as the terminal, or with all columns without one.
pub(crate) fn render(table: &Table) -> String {
    let out = io::stdout();
    // Some terminals do not say how large they are.
    let width = || terminal_size_of(&out).map_or(80, |(Width(width), _)| width.into());
    table.to_text(out.is_terminal().then(width))
}
