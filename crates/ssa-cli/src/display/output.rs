//! Results: standard output.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use serde::Serialize;
use ssa_report::Table;
use terminal_size::{Width, terminal_size_of};

/// Writes a text and a line break.
///
/// # Errors
/// Nobody reads, or the disk that a redirection writes to is full; `println!` would panic.
pub(crate) fn print(text: &str) -> Result<()> {
    write_bytes(format!("{text}\n").as_bytes())
}

/// Writes a value as indented JSON.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value).context("cannot write the result as JSON")?)
}

/// Writes bytes as they are.
///
/// # Errors
/// As [`print()`].
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// A table as text for standard output: as wide as the terminal, or whole where there is none.
pub(crate) fn render(table: &Table) -> String {
    let out = io::stdout();
    // Some terminals do not say how large they are.
    let width = || terminal_size_of(&out).map_or(80, |(Width(width), _)| width.into());
    table.to_text(out.is_terminal().then(width))
}
