//! Documents from files of several kinds, one after another.
//!
//! ```text
//! inputs    files, directories, globs, hf://datasets/.., -
//!   -> sources    find_sources: one per file, in a fixed order
//!   -> records    Source::records: still undecoded, so that decoding can run on many threads
//!   -> documents  Record::into_text
//! ```
//!
//! Nothing is read as a whole but one record, whose size is bounded by
//! [`InputOptions::max_document_bytes`].

mod compressed;
mod find;
mod hub;
mod json;
mod lines;
mod parquet;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use find::{Sources, find_sources};

use crate::source::canonical;
use crate::{DataError, Document, Message, Result, Tokenizer};

/// How files and the standard input are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By the ending of the name: `.jsonl`, `.ndjson` and `.json` hold a JSON object on every line,
    /// `.parquet` is Parquet, and every other file is text. In a directory, only `.txt`, `.md`,
    /// `.jsonl`, `.ndjson` and `.parquet` are taken. The standard input has no name.
    #[default]
    Auto,
    /// Every file is one document. In a directory, every file that is not binary is taken.
    Text,
    /// Every line is a JSON object.
    Jsonl,
}

ssa_names::names!(Format: "input format" { Auto = "auto", Text = "text", Jsonl = "jsonl" });

/// What to read of the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputOptions {
    /// How files are read.
    pub format: Format,
    /// Key of a JSON object, or column of a Parquet file, that holds the text.
    pub text_field: String,
    /// Key or column that holds a conversation, a list of `{role, content}`, which is read instead
    /// of the text.
    pub conversations_field: Option<String>,
    /// The largest document, JSON line or file of text, which must fit in memory.
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

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Text,
    Jsonl,
    Parquet,
}

/// Where bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    /// Downloaded when it is opened.
    Hub(hub::HubFile),
    Stdin,
}

/// A file with documents, or the standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    name: String,
    place: Place,
    content: Content,
    bytes: Option<u64>,
}

impl Source {
    /// The name for people to read.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size of the file as it is stored; none for the standard input.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Whether it is a file below a directory.
    pub(crate) fn is_below(&self, directory: &Path) -> bool {
        matches!(&self.place, Place::File(path) if canonical(path).starts_with(canonical(directory)))
    }

    /// The records, in order. `read` counts the bytes read so far of the file as it is stored.
    ///
    /// # Errors
    /// The file cannot be opened, or is no Parquet file, or has no such column. The iterator ends
    /// at its first error: a file that is damaged or cut short, or a record that is too large.
    pub fn records(&self, options: &InputOptions, read: Arc<AtomicU64>) -> Result<Records> {
        let path = match &self.place {
            Place::File(path) => Some(path.clone()),
            Place::Hub(file) => Some(hub::download(file)?),
            Place::Stdin => None,
        };
        let (name, limit) = (self.name.as_str(), options.max_document_bytes);
        let records: Box<dyn Iterator<Item = Result<Payload>> + Send> = match (self.content, path) {
            (Content::Parquet, Some(path)) => {
                Box::new(parquet::records(&path, name, options, read)?)
            }
            (Content::Jsonl, path) => {
                Box::new(lines::lines(compressed::open(path, name, read)?, name, limit))
            }
            (_, path) => Box::new(lines::whole(compressed::open(path, name, read)?, name, limit)),
        };
        Ok(Records { name: self.name.as_str().into(), number: 0, content: self.content, records })
    }
}

/// The records of a source.
pub struct Records {
    name: Arc<str>,
    number: u64,
    content: Content,
    records: Box<dyn Iterator<Item = Result<Payload>> + Send>,
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        let payload = self.records.next()?;
        let number = self.number;
        self.number += 1;
        let (name, content) = (Arc::clone(&self.name), self.content);
        Some(payload.map(|payload| Record { name, number, content, payload }))
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Records")
            .field("name", &self.name)
            .field("number", &self.number)
            .finish()
    }
}

/// What a record holds before it is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Payload {
    Text(Vec<u8>),
    /// A JSON object.
    Line(Vec<u8>),
    Messages(Vec<Message>),
}

/// A document before it is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    name: Arc<str>,
    number: u64,
    content: Content,
    payload: Payload,
}

impl Record {
    /// Position in its source, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        match &self.payload {
            Payload::Text(bytes) | Payload::Line(bytes) => bytes.len(),
            Payload::Messages(messages) => {
                messages.iter().map(|message| message.role.len() + message.content.len()).sum()
            }
        }
    }

    /// The text, which may be empty. A conversation becomes text as `tokenizer` says.
    ///
    /// # Errors
    /// [`DataError::BadRecord`] if the line is no JSON object, has no such key or the key holds
    /// something else, or the tokenizer's chat template refuses the conversation.
    pub fn into_text(self, options: &InputOptions, tokenizer: &Tokenizer) -> Result<Vec<u8>> {
        let Self { name, number, content, payload } = self;
        let bad = |cause: String| DataError::BadRecord {
            record: describe(&name, number, content),
            cause,
        };
        let messages = match payload {
            Payload::Text(text) => return Ok(text),
            Payload::Messages(messages) => messages,
            Payload::Line(line) => match &options.conversations_field {
                None => return json::text(&line, &options.text_field).map_err(bad),
                Some(field) => json::messages(&line, field).map_err(bad)?,
            },
        };
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        tokenizer.render(&messages).map(String::into_bytes).map_err(|error| bad(error.to_string()))
    }

    /// The name for people to read.
    pub fn describe(&self) -> String {
        describe(&self.name, self.number, self.content)
    }
}

fn describe(name: &str, number: u64, content: Content) -> String {
    match content {
        Content::Text => name.to_owned(),
        Content::Jsonl => format!("{name}, line {}", number + 1),
        Content::Parquet => format!("{name}, row {}", number + 1),
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

/// Adds to a count of bytes that another thread watches.
fn count(read: &AtomicU64, bytes: u64) {
    read.fetch_add(bytes, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
