//! Lines of at most 100 columns.

use crate::files::{self, File};

const WIDTH: usize = 100;

/// Rows of Markdown tables and lines with URLs cannot be wrapped.
fn may_be_long(file: &File, line: &str) -> bool {
    line.contains("://") || (file.name.ends_with(".md") && line.trim_start().starts_with('|'))
}

#[test]
fn lines_have_at_most_100_columns() {
    let mut findings = Vec::new();
    for file in files::all() {
        for (number, line) in (1..).zip(file.text.lines()) {
            let columns = line.chars().count();
            if columns > WIDTH && !may_be_long(&file, line) {
                findings.push((file.name.clone(), format!("{number}: {columns} columns")));
            }
        }
    }
    files::check("lines wider than 100 columns", &findings, &[]);
}
