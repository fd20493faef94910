//! Documents from files of several kinds, one after another.
//!
//! ```text
//! inputs    files, directories, patterns, hf://datasets/.., -
//!   -> sources    find_sources: one per file, in a fixed order
//!   -> records    Source::records: still undecoded, so that decoding can run on many threads
//!   -> documents  Record::into_text
//! ```
//!
//! Nothing is read as a whole but one record, whose size is bounded by
//! [`InputOptions::max_document_bytes`]. What a file is follows from its content and its name, see
//! [`kind`]; every verb that reads text does it here.

mod entries;
mod field;
mod hub;
mod kind;
mod lines;
mod parquet;
mod pattern;
mod payload;
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
pub use source::{Record, Records, Source};
pub(crate) use sum::ReadSum;
pub use walk::{Sources, find_sources, read_documents};

use crate::{DataError, Result};
use kind::Refusal;

/// How files and the standard input are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By content and name: Parquet, JSON lines, JSON (an array of objects, or objects over several
    /// lines), or else text. In a directory, what is neither is skipped, and so are single `.json`
    /// files. The standard input has no name, so it needs another format.
    #[default]
    Auto,
    /// Every file is one document. In a directory, every file that is not binary is taken.
    Text,
    /// JSON lines, an array of objects, or objects over several lines.
    Jsonl,
}

ssa_names::names!(Format: "input format" { Auto = "auto", Text = "text", Jsonl = "jsonl" });

/// What to read of the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputOptions {
    /// How files are read.
    pub format: Format,
    /// Key of a JSON object, or column of a Parquet file, that holds the text. Dots lead into
    /// nested objects and structs.
    pub text_field: String,
    /// Key or column that holds a conversation, a list of messages, which is read instead of the
    /// text; `tools` beside it are those that the messages call.
    pub conversations_field: Option<String>,
    /// The largest document, JSON object or file of text, which must fit in memory.
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

/// The documents of all sources, one after another, those without text left out.
///
/// # Errors
/// The items are errors where [`Source::records`] and [`Record::into_text`] are; the first should
/// be the last item taken.
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

/// The error of a file that is not read.
fn refused(name: &str, Refusal { cause, hint }: Refusal) -> DataError {
    DataError::input(name, cause, hint)
}

#[cfg(test)]
mod tests;
