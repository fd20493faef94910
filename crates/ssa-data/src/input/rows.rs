//! Rows with all their fields.

use std::path::PathBuf;

use ssa_text::Json;

use super::{InputOptions, find_sources};
use crate::Result;

/// A row of a dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The file, with the line or the row in it, for messages.
    pub name: String,
    /// An object.
    pub fields: Json,
}

/// Reads all rows of the inputs of [`find_sources`] into memory: JSON lines, JSON arrays and
/// Parquet, also compressed, with all their fields. Blank lines are no rows.
///
/// # Errors
/// Same as [`find_sources`]; [`DataError::Input`](crate::DataError::Input) names the line or row
/// that is not an object, or the file that holds text.
pub fn read_rows(inputs: &[PathBuf]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for source in find_sources(inputs, &InputOptions::default())?.sources {
        for row in source.rows()? {
            let (name, fields) = row?;
            rows.push(Row { name, fields });
        }
    }
    Ok(rows)
}
