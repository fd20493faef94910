//! Consecutive JSON values: the items of an array, or objects that span several lines.

use std::io::BufRead;

use super::lines::{damaged, too_large};
use super::payload::Payload;
use crate::{DataError, Result};

/// Finds the end of a JSON object or array byte by byte.
#[derive(Debug, Default)]
pub(super) struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Whether the value ends with this byte.
    pub(super) fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// Yields every object of the stream.
pub(super) fn values(
    reader: Box<dyn BufRead + Send>,
    name: &str,
    limit: u64,
) -> impl Iterator<Item = Result<Payload>> + Send + use<> {
    let mut values = Values { reader, name: name.to_owned(), limit, layout: None };
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let value = values.next().transpose();
        ended = !matches!(value, Some(Ok(_)));
        value.map(|value| value.map(Payload::Object))
    })
}

struct Values {
    reader: Box<dyn BufRead + Send>,
    name: String,
    limit: u64,
    /// Known once the first byte is read.
    layout: Option<Layout>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Array,
    Sequence,
    /// After the end of the array.
    Ended,
}

impl Values {
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let Some(byte) = self.peek()? else {
                return match self.layout {
                    Some(Layout::Array) => Err(self.wrong("the file ends inside its array")),
                    _ => Ok(None),
                };
            };
            match (byte, self.layout) {
                (b' ' | b'\t' | b'\r' | b'\n', _) => self.reader.consume(1),
                (b'[', None) => {
                    self.layout = Some(Layout::Array);
                    self.reader.consume(1);
                }
                (b',', Some(Layout::Array)) => self.reader.consume(1),
                (b']', Some(Layout::Array)) => {
                    self.layout = Some(Layout::Ended);
                    self.reader.consume(1);
                }
                (b'{', layout) if layout != Some(Layout::Ended) => {
                    self.layout = Some(layout.unwrap_or(Layout::Sequence));
                    return self.object().map(Some);
                }
                _ => return Err(self.wrong("expected JSON objects, or an array of them")),
            }
        }
    }

    fn object(&mut self) -> Result<Vec<u8>> {
        let (mut object, mut scan) = (Vec::new(), Scan::default());
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) => return Err(damaged(&self.name, &error)),
            };
            if available.is_empty() {
                return Err(self.wrong("the file ends inside an object"));
            }
            let end = available.iter().position(|&byte| scan.ends_with(byte));
            let length = end.map_or(available.len(), |end| end + 1);
            object.extend_from_slice(&available[..length]);
            self.reader.consume(length);
            if object.len() as u64 > self.limit {
                return Err(too_large(&self.name, self.limit));
            }
            if end.is_some() {
                return Ok(object);
            }
        }
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        self.reader
            .fill_buf()
            .map(|available| available.first().copied())
            .map_err(|error| damaged(&self.name, &error))
    }

    fn wrong(&self, cause: &str) -> DataError {
        DataError::input(&self.name, cause, "get the file again, or leave it out")
    }
}
