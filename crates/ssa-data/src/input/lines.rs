//! Records of a stream: its lines, or the whole stream.

use std::io::{self, BufRead, Read};

use super::payload::Payload;
use super::utf16::BYTE_ORDER_MARK;
use crate::{DataError, Result};

/// Yields every line. A blank line is an empty document, so record numbers equal line numbers.
pub(super) fn lines(
    mut reader: Box<dyn BufRead + Send>,
    name: &str,
    limit: u64,
) -> impl Iterator<Item = Result<Payload>> + Send + use<> {
    let name = name.to_owned();
    let mut first = true;
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let line = read_line(&mut reader, &name, limit, &mut first).transpose();
        ended = !matches!(line, Some(Ok(_)));
        line.map(|line| line.map(Payload::Object))
    })
}

fn read_line(
    reader: &mut Box<dyn BufRead + Send>,
    name: &str,
    limit: u64,
    first: &mut bool,
) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(limit + 1).read_until(b'\n', &mut line).map_err(|error| damaged(name, &error))?;
    if line.len() as u64 > limit {
        return Err(too_large(name, limit));
    }
    if line.is_empty() {
        return Ok(None);
    }
    if std::mem::take(first) && line.starts_with(BYTE_ORDER_MARK) {
        line.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(Some(line))
}

/// The whole stream.
pub(super) fn whole(
    reader: Box<dyn BufRead + Send>,
    name: &str,
    limit: u64,
) -> impl Iterator<Item = Result<Payload>> + Send + use<> {
    let name = name.to_owned();
    std::iter::once_with(move || {
        let mut text = Vec::new();
        reader.take(limit + 1).read_to_end(&mut text).map_err(|error| damaged(&name, &error))?;
        if text.len() as u64 > limit {
            Err(too_large(&name, limit))
        } else {
            if text.starts_with(BYTE_ORDER_MARK) {
                text.drain(..BYTE_ORDER_MARK.len());
            }
            Ok(Payload::Text(text))
        }
    })
}

pub(super) fn damaged(name: &str, error: &io::Error) -> DataError {
    let cause = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the compressed file is truncated".to_owned(),
        io::ErrorKind::OutOfMemory => return DataError::Memory { name: name.to_owned() },
        // The library of zstd has no kind for it.
        _ if error.to_string().contains("not enough memory") => {
            return DataError::Memory { name: name.to_owned() };
        }
        _ => error.to_string(),
    };
    DataError::input(name, cause, "get the file again, or leave it out")
}

pub(super) fn too_large(name: &str, limit: u64) -> DataError {
    let cause = format!(
        "a document (a JSON object, a row, or a file of text) is larger than {limit} bytes"
    );
    let hint = "split it, or raise --max-document-bytes if there is enough memory";
    DataError::input(name, cause, hint)
}
