//! Results: standard output.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes a text and ends it with a line break.
///
/// # Errors
/// Nobody reads, or the disk behind a redirection is full. `println!` would panic instead.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Writes a value as indented JSON.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value).context("cannot write the result as JSON")?)
}
