//! Sources and their records.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ssa_text::{Json, Tokenizer};

use super::entries::canonical;
use super::kind::Content;
use super::parquet::Wanted;
use super::payload::Payload;
use super::stream::{Opened, Stream};
use super::sum::ReadSum;
use super::{InputOptions, field, hub, lines, parquet, refused, stream, values};
use crate::file_sum::FileSum;
use crate::{DataError, Result};

/// What rows are read from.
const ROWS_HINT: &str = "give rows as JSON lines, a JSON array of objects, or Parquet";

/// The location of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    File(PathBuf),
    /// Downloaded on opening.
    Hub(hub::HubFile),
    Stdin,
}

/// A file with documents, or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub(super) name: String,
    pub(super) location: Location,
    pub(super) bytes: Option<u64>,
    /// Whether it was found in a directory, where binary files are skipped.
    pub(super) listed: bool,
}

impl Source {
    pub(super) fn new(name: String, location: Location, bytes: Option<u64>) -> Self {
        Self { name, location, bytes, listed: false }
    }

    /// The name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stored size of the file; `None` for standard input and pipes.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Whether it is a file inside a directory.
    pub(crate) fn is_below(&self, directory: &Path) -> bool {
        match &self.location {
            Location::File(path) => canonical(path).starts_with(canonical(directory)),
            Location::Hub(_) | Location::Stdin => false,
        }
    }

    /// Whether its content may change between runs. Hub files are fixed by their commit.
    pub(crate) fn can_change(&self) -> bool {
        !matches!(self.location, Location::Hub(_))
    }

    /// Size and checksum of the stored file.
    pub(crate) fn sum(&self) -> Result<FileSum> {
        let sum = ReadSum::new(Arc::default(), None);
        stream::read_all(self.path()?.as_deref(), &self.name, &sum)?;
        Ok(sum.so_far())
    }

    /// Opens the source and yields its records in order. `read` counts the stored bytes read so
    /// far.
    ///
    /// # Errors
    /// If the file cannot be opened, has an unsupported kind, or does not have the column. The
    /// iterator ends at its first error: a corrupt or truncated file, or a record that is too
    /// large.
    pub fn records(&self, options: &InputOptions, read: Arc<AtomicU64>) -> Result<Records> {
        self.summed_records(options, ReadSum::new(read, None))
    }

    /// Like [`records`](Self::records), and updates `sum` with the bytes read.
    pub(crate) fn summed_records(
        &self,
        options: &InputOptions,
        sum: Arc<ReadSum>,
    ) -> Result<Records> {
        self.open(options, Wanted::of(options), sum)
    }

    /// Opens the source and yields the fields of its records, blank lines excepted.
    pub(super) fn rows(&self) -> Result<impl Iterator<Item = Result<(String, Json)>> + use<>> {
        let records =
            self.open(&InputOptions::default(), Wanted::Row, ReadSum::new(Arc::default(), None))?;
        Ok(records.filter_map(|record| record.and_then(Record::into_row).transpose()))
    }

    fn open(&self, options: &InputOptions, wanted: Wanted, sum: Arc<ReadSum>) -> Result<Records> {
        let path = self.path()?;
        let (name, limit) = (self.name.as_str(), options.max_document_bytes);
        let opened = stream::open(path.as_deref(), name, options.format, Arc::clone(&sum))?;
        let Stream { content, mut reader, .. } = match opened {
            Opened::Stream(stream) => stream,
            Opened::Refused(refusal) => return Err(refused(name, refusal)),
        };
        let records: Box<dyn Iterator<Item = Result<Payload>> + Send> = match (content, path) {
            (Content::Parquet, Some(path)) => {
                // Rows are not read in byte order, so the checksum is computed first.
                sum.stop_counting();
                io::copy(&mut reader, &mut io::sink())
                    .map_err(|error| lines::damaged(name, &error))?;
                Box::new(parquet::records(&path, name, wanted, limit, sum)?)
            }
            (Content::Parquet, None) => {
                let cause = "Parquet cannot be read from standard input";
                return Err(DataError::input(name, cause, "name the file"));
            }
            (Content::Lines, _) => Box::new(lines::lines(reader, name, limit)),
            (Content::Values, _) => Box::new(values::values(reader, name, limit)),
            (Content::Text, _) => {
                let listed = self.listed;
                Box::new(lines::whole(reader, name, limit).map(move |text| match text {
                    // Binary, although its start looked like text.
                    Ok(Payload::Text(text)) if listed && text.contains(&0) => {
                        Ok(Payload::Text(Vec::new()))
                    }
                    text => text,
                }))
            }
        };
        Ok(Records { name: name.into(), number: 0, content, records })
    }

    fn path(&self) -> Result<Option<PathBuf>> {
        match &self.location {
            Location::File(path) => Ok(Some(path.clone())),
            Location::Hub(file) => hub::download(file).map(Some),
            Location::Stdin => Ok(None),
        }
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
            .finish_non_exhaustive()
    }
}

/// A document before decoding.
#[derive(Clone, Debug, PartialEq)]
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

    /// Bytes of memory that it uses.
    pub fn bytes(&self) -> usize {
        match &self.payload {
            Payload::Text(bytes) | Payload::Object(bytes) => bytes.len(),
            Payload::Conversation(conversation) => conversation.bytes(),
            Payload::Row(fields) => fields.bytes(),
        }
    }

    /// Decodes the text, which may be empty. The chat template of `tokenizer` formats
    /// conversations.
    ///
    /// # Errors
    /// [`DataError::Input`] names the record if it is not a JSON object, does not have the key, has
    /// a value of the wrong type, or if the chat template refuses the conversation.
    pub fn into_text(self, options: &InputOptions, tokenizer: &Tokenizer) -> Result<Vec<u8>> {
        let name = self.describe();
        let bad = |cause: String| DataError::input(name, cause, "");
        let conversation = match self.payload {
            Payload::Text(text) => return Ok(text),
            Payload::Conversation(conversation) => conversation,
            Payload::Row(_) => return Err(bad("expected a text, not a whole row".to_owned())),
            Payload::Object(object) => match &options.conversations_field {
                None => return field::text(&object, &options.text_field).map_err(bad),
                Some(field) => match field::conversation(&object, field) {
                    Ok(conversation) => conversation,
                    Err(cause) => return Err(bad(cause)),
                },
            },
        };
        if conversation.is_empty() {
            return Ok(Vec::new());
        }
        let text = tokenizer.render(&conversation);
        text.map(String::into_bytes).map_err(|error| bad(error.to_string()))
    }

    /// The name and the fields; `None` for a blank line.
    fn into_row(self) -> Result<Option<(String, Json)>> {
        let name = self.describe();
        let fields = match self.payload {
            Payload::Object(object) if object.trim_ascii().is_empty() => return Ok(None),
            Payload::Object(object) => Json::parse(&object),
            Payload::Row(fields) => Ok(fields),
            Payload::Text(_) | Payload::Conversation(_) => Err("a text has no fields".to_owned()),
        };
        match fields {
            Ok(fields @ Json::Object(_)) => Ok(Some((name, fields))),
            Ok(_) => Err(DataError::input(name, "expected an object", ROWS_HINT)),
            Err(cause) => Err(DataError::input(name, cause, ROWS_HINT)),
        }
    }

    /// The name, for messages.
    pub fn describe(&self) -> String {
        let (name, number) = (&self.name, self.number + 1);
        match self.content {
            Content::Text => name.to_string(),
            Content::Lines => format!("{name}, line {number}"),
            Content::Values => format!("{name}, object {number}"),
            Content::Parquet => format!("{name}, row {number}"),
        }
    }
}
