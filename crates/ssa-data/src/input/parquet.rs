//! One column of a Parquet file.

use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::Type;

use super::json::list;
use super::{InputOptions, Payload, count};
use crate::{DataError, Message, Result};

/// Opens a file; its records are its rows.
pub(super) fn records(
    path: &Path,
    name: &str,
    options: &InputOptions,
    read: Arc<AtomicU64>,
) -> Result<impl Iterator<Item = Result<Payload>> + Send + use<>> {
    let name = name.to_owned();
    let file = File::open(path).map_err(|source| DataError::from_open(path, source))?;
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let reader = SerializedFileReader::new(file).map_err(|error| damaged(&name, &error))?;
    let rows = reader.metadata().file_metadata().num_rows().max(1).unsigned_abs();
    let (column, setting) = match &options.conversations_field {
        Some(field) => (field, "conversations_field"),
        None => (&options.text_field, "text_field"),
    };
    let projection = project(&reader, column).map_err(|columns| DataError::NoColumn {
        name: name.clone(),
        column: column.clone(),
        columns: list(&columns),
        setting,
    })?;
    let iterator = RowIter::from_file_into(Box::new(reader));
    let mut iterator =
        iterator.project(Some(projection)).map_err(|error| damaged(&name, &error))?;
    let conversations = options.conversations_field.is_some();
    let limit = options.max_document_bytes;
    // The file is read by row groups; its rows are the finest measure of progress there is.
    let mut row_number = 0;
    let rows_in_order = std::iter::from_fn(move || next_row(&mut iterator));
    Ok(rows_in_order.map(move |row| {
        let row = row.map_err(|error| damaged(&name, &error))?;
        let before = bytes * row_number / rows;
        row_number += 1;
        count(&read, bytes * row_number / rows - before);
        let payload = payload(row, conversations).map_err(|cause| DataError::BadRecord {
            record: format!("{name}, row {row_number}"),
            cause,
        })?;
        match &payload {
            Payload::Text(text) if text.len() as u64 > limit => {
                Err(DataError::DocumentTooLarge { name: name.clone(), limit })
            }
            _ => Ok(payload),
        }
    }))
}

/// The next row. The decoder panics on some kinds of damage, which is an error of the file like any
/// other.
fn next_row(rows: &mut RowIter<'static>) -> Option<Result<Row, ParquetError>> {
    // The iterator is not used again after an error, so what the panic left of it is never seen.
    panic::catch_unwind(AssertUnwindSafe(|| rows.next())).unwrap_or_else(|_| {
        Some(Err(ParquetError::General("the file contradicts itself".to_owned())))
    })
}

/// The schema with one column, or else the names of all.
fn project(reader: &impl FileReader, column: &str) -> Result<Type, Vec<String>> {
    let schema = reader.metadata().file_metadata().schema();
    let names = || schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let field =
        schema.get_fields().iter().find(|field| field.name() == column).ok_or_else(names)?;
    Type::group_type_builder(schema.name())
        .with_fields(vec![Arc::clone(field)])
        .build()
        .map_err(|_| names())
}

fn payload(row: Row, conversation: bool) -> Result<Payload, String> {
    let field = row.into_columns().pop().map_or(Field::Null, |(_, field)| field);
    if conversation {
        messages(field).map(Payload::Messages)
    } else {
        text(field).map(Payload::Text)
    }
}

fn text(field: Field) -> Result<Vec<u8>, String> {
    match field {
        Field::Null => Ok(Vec::new()),
        Field::Str(text) => Ok(text.into_bytes()),
        Field::Bytes(bytes) => Ok(bytes.data().to_vec()),
        _ => Err("the column holds no text; name one that does with `text_field`".to_owned()),
    }
}

fn messages(field: Field) -> Result<Vec<Message>, String> {
    match field {
        Field::Null => Ok(Vec::new()),
        Field::ListInternal(messages) => messages.elements().iter().map(message).collect(),
        _ => Err(NO_CONVERSATION.to_owned()),
    }
}

const NO_CONVERSATION: &str =
    "the column holds no list of {role, content}; name one that does with `conversations_field`";

fn message(field: &Field) -> Result<Message, String> {
    let Field::Group(row) = field else {
        return Err(NO_CONVERSATION.to_owned());
    };
    let part = |wanted: &str| match row.get_column_iter().find(|(name, _)| *name == wanted) {
        Some((_, Field::Str(text))) => Ok(text.clone()),
        _ => Err(NO_CONVERSATION.to_owned()),
    };
    Ok(Message { role: part("role")?, content: part("content")? })
}

fn damaged(name: &str, error: &ParquetError) -> DataError {
    DataError::DamagedSource { name: name.to_owned(), cause: error.to_string() }
}
