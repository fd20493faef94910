//! Reads documents from files of several kinds, one after another.
//!
//! ```text
//! inputs    files, directories, patterns, hf://datasets/.., -
//!   -> sources    find_sources: one per file, in a fixed order
//!   -> records    Source::records: not yet decoded, so that many threads can decode
//!   -> documents  Record::into_text
//! ```
//!
//! Memory holds one record at a time, whose size is bounded by
//! [`InputOptions::max_document_bytes`]. The kind of a file follows from its content and its name,
//! see [`kind`]. Every verb that reads text uses this module.

mod entries;
mod field;
mod hub;
mod kind;
mod lines;
mod parquet;
mod pattern;
mod payload;
mod rows;
mod source;
mod stream;
mod sum;
mod utf16;
mod values;
mod walk;

use std::sync::Arc;

use ssa_text::{Document, Tokenizer};

pub(crate) use entries::entries;
pub use hub::{load_tokenizer, model_directory};
pub use rows::{Row, read_rows};
pub use source::{Record, Records, Source};
pub(crate) use sum::ReadSum;
pub use walk::{Sources, find_sources, read_documents};

use crate::{DataError, Result};
use kind::Refusal;

/// How files and standard input are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By content and name: Parquet, JSON lines, JSON (an array of objects, or objects over several
    /// lines), otherwise text. In a directory, other files and single `.json` files are skipped.
    /// Standard input has no name and needs an explicit format.
    #[default]
    Auto,
    /// Every file is one document. In a directory, all files that are not binary are read.
    Text,
    /// JSON lines, an array of objects, or objects that span several lines.
    Jsonl,
}

ssa_names::names!(Format: "input format" { Auto = "auto", Text = "text", Jsonl = "jsonl" });

/// How to read the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputOptions {
    /// How files are read.
    pub format: Format,
    /// JSON key or Parquet column of the text. Dots select fields of nested objects and structs.
    pub text_field: String,
    /// Key or column of a conversation (a list of messages), which is read instead of the text. A
    /// `tools` field next to it lists the tools that the messages call.
    pub conversations_field: Option<String>,
    /// Maximum size of a document, JSON object or text file, which must fit in memory.
    pub max_document_bytes: u64,
}

impl Default for InputOptions {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            text_field: "text".to_owned(),
            conversations_field: None,
            max_document_bytes: 1 << 30,
        }
    }
}

/// Yields the documents of all sources in order, without empty ones.
///
/// # Errors
/// Items are errors of [`Source::records`] and [`Record::into_text`]; stop after the first.
pub fn documents<'a>(
    sources: &'a Sources,
    options: &'a InputOptions,
    tokenizer: &'a Tokenizer,
) -> impl Iterator<Item = Result<Document>> + Send + 'a {
    let records = sources.sources.iter().flat_map(move |source| {
        let (records, error) = match source.records(options, Arc::default()) {
            Ok(records) => (Some(records), None),
            Err(error) => (None, Some(Err(error))),
        };
        records.into_iter().flatten().chain(error)
    });
    let documents = records.map(move |record| {
        let record = record?;
        let name = record.describe();
        Ok(Document { name, text: record.into_text(options, tokenizer)? })
    });
    documents.filter(|document| !document.as_ref().is_ok_and(|document| document.text.is_empty()))
}

/// The error for a refused file.
fn refused(name: &str, Refusal { cause, hint }: Refusal) -> DataError {
    DataError::input(name, cause, hint)
}

#[cfg(test)]
mod tests;
