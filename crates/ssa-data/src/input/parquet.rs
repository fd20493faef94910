//! Reads columns of a Parquet file.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::Repetition;
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::{Type, TypePtr};
use ssa_text::{Conversation, Json, catch_panic};

use super::InputOptions;
use super::field::{list, sibling};
use super::payload::Payload;
use super::sum::ReadSum;
use crate::{DataError, Result};

/// The columns to read.
pub(super) enum Wanted {
    Text(String),
    Conversation {
        messages: String,
        tools: String,
    },
    /// All of them.
    Row,
}

/// Opens a file; its records are its rows.
pub(super) fn records(
    path: &Path,
    name: &str,
    wanted: Wanted,
    limit: u64,
    sum: Arc<ReadSum>,
) -> Result<impl Iterator<Item = Result<Payload>> + Send + use<>> {
    let name = name.to_owned();
    let file = File::open(path).map_err(|source| DataError::from_open(path, source))?;
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let opened = catch_panic(|| SerializedFileReader::new(file));
    let reader = flatten(opened).map_err(|error| damaged(&name, &error))?;
    let rows = reader.metadata().file_metadata().num_rows().max(1).unsigned_abs();
    let schema = reader.metadata().file_metadata().schema();
    let projection = wanted.project(schema).map_err(|error| no_column(&name, schema, &error))?;
    let iterator = RowIter::from_file_into(Box::new(reader));
    let mut iterator =
        iterator.project(Some(projection)).map_err(|error| damaged(&name, &error))?;
    // The file is read by row groups, so rows are the finest measure of progress.
    let mut row_number = 0;
    // The iterator is not used again after an error, so its state after a panic does not matter.
    let rows_in_order = std::iter::from_fn(move || {
        catch_panic(|| iterator.next())
            .unwrap_or_else(|cause| Some(Err(ParquetError::General(contradiction(&cause)))))
    });
    Ok(rows_in_order.map(move |row| {
        let row = row.map_err(|error| damaged(&name, &error))?;
        // A product of a file's size and its rows can have more than 64 bits.
        let share = |row: u64| (u128::from(bytes) * u128::from(row) / u128::from(rows)) as u64;
        let before = share(row_number);
        row_number += 1;
        sum.count(share(row_number).saturating_sub(before));
        let payload = wanted
            .payload(row)
            .map_err(|cause| DataError::input(format!("{name}, row {row_number}"), cause, ""))?;
        match &payload {
            Payload::Text(text) if text.len() as u64 > limit => {
                Err(super::lines::too_large(&name, limit))
            }
            _ => Ok(payload),
        }
    }))
}

impl Wanted {
    pub(super) fn of(options: &InputOptions) -> Self {
        match &options.conversations_field {
            Some(field) => {
                Self::Conversation { messages: field.clone(), tools: sibling(field, "tools") }
            }
            None => Self::Text(options.text_field.clone()),
        }
    }

    /// The part of the schema with the needed columns, or the missing column.
    fn project(&self, schema: &Type) -> Result<Type, MissingColumn> {
        let missing = |column: &str, flag| MissingColumn { column: column.to_owned(), flag };
        let (field, flag, tools) = match self {
            Self::Text(field) => (field, "--text-field", None),
            Self::Conversation { messages, tools } => {
                (messages, "--conversations-field", Some(tools))
            }
            Self::Row => return Ok(schema.clone()),
        };
        let column = project(schema.get_fields(), field).ok_or_else(|| missing(field, flag))?;
        let mut columns = vec![column];
        if let Some(tools) = tools.and_then(|tools| project(schema.get_fields(), tools)) {
            // Two columns of one struct are one column with two fields.
            columns = match (&columns[0], tools) {
                (first, tools) if first.name() == tools.name() => {
                    vec![merge(first, &tools).ok_or_else(|| missing(field, flag))?]
                }
                (first, tools) => vec![Arc::clone(first), tools],
            };
        }
        Type::group_type_builder(schema.name())
            .with_fields(columns)
            .build()
            .map_err(|_| missing(field, flag))
    }

    fn payload(&self, row: Row) -> Result<Payload, String> {
        match self {
            Self::Row => json(&Field::Group(row)).map(Payload::Row),
            Self::Text(field) => text(find(&row.into_columns(), field), field).map(Payload::Text),
            Self::Conversation { messages, tools } => {
                let row: Vec<(String, Field)> = row.into_columns();
                let value = |field: &str| match find(&row, field) {
                    Some(value) => json(value).map_err(|cause| format!("`{field}`: {cause}")),
                    None => Ok(Json::Null),
                };
                Conversation::new(value(messages)?, Some(value(tools)?))
                    .map(Payload::Conversation)
                    .map_err(|error| format!("`{messages}`: {error}"))
            }
        }
    }
}

struct MissingColumn {
    column: String,
    flag: &'static str,
}

/// The column of a name, or of a path through structs that then have no other fields.
fn project(fields: &[TypePtr], name: &str) -> Option<TypePtr> {
    if let Some(field) = fields.iter().find(|field| field.name() == name) {
        return Some(Arc::clone(field));
    }
    fields.iter().filter(|field| field.is_group()).find_map(|field| {
        let rest = name.strip_prefix(field.name())?.strip_prefix('.')?;
        group(field, vec![project(field.get_fields(), rest)?])
    })
}

/// Merges two structs of one column.
fn merge(first: &TypePtr, second: &TypePtr) -> Option<TypePtr> {
    if !first.is_group() || !second.is_group() {
        return None;
    }
    let mut fields = first.get_fields().to_vec();
    for field in second.get_fields() {
        match fields.iter_mut().find(|known| known.name() == field.name()) {
            Some(known) => *known = merge(known, field)?,
            None => fields.push(Arc::clone(field)),
        }
    }
    group(first, fields)
}

fn group(like: &Type, fields: Vec<TypePtr>) -> Option<TypePtr> {
    let info = like.get_basic_info();
    let repetition = if info.has_repetition() { info.repetition() } else { Repetition::OPTIONAL };
    Type::group_type_builder(like.name())
        .with_repetition(repetition)
        .with_fields(fields)
        .build()
        .ok()
        .map(Arc::new)
}

/// The value of a name, or of a path through structs.
fn find<'a>(row: &'a [(String, Field)], name: &str) -> Option<&'a Field> {
    if let Some((_, field)) = row.iter().find(|(column, _)| column == name) {
        return Some(field);
    }
    row.iter().find_map(|(column, field)| {
        let rest = name.strip_prefix(column.as_str())?.strip_prefix('.')?;
        match field {
            Field::Group(_) => in_struct(field, rest),
            Field::Null => Some(field),
            _ => None,
        }
    })
}

fn in_struct<'a>(field: &'a Field, name: &str) -> Option<&'a Field> {
    let Field::Group(row) = field else { return None };
    row.get_column_iter().find_map(|(column, field)| {
        if column == name {
            return Some(field);
        }
        in_struct(field, name.strip_prefix(column.as_str())?.strip_prefix('.')?)
    })
}

fn text(field: Option<&Field>, name: &str) -> Result<Vec<u8>, String> {
    match field {
        None | Some(Field::Null) => Ok(Vec::new()),
        Some(Field::Str(text)) => Ok(text.clone().into_bytes()),
        Some(Field::Bytes(bytes)) => Ok(bytes.data().to_vec()),
        Some(_) => Err(format!(
            "the column `{name}` is not text\nhint: name a text column with --text-field"
        )),
    }
}

fn json(field: &Field) -> Result<Json, String> {
    Ok(match field {
        Field::Null => Json::Null,
        Field::Bool(value) => Json::Bool(*value),
        Field::Byte(value) => Json::Int((*value).into()),
        Field::Short(value) => Json::Int((*value).into()),
        Field::Int(value) => Json::Int((*value).into()),
        Field::Long(value) => Json::Int((*value).into()),
        Field::UByte(value) => Json::Int((*value).into()),
        Field::UShort(value) => Json::Int((*value).into()),
        Field::UInt(value) => Json::Int((*value).into()),
        Field::ULong(value) => Json::Int((*value).into()),
        Field::Float(value) => Json::Float((*value).into()),
        Field::Double(value) => Json::Float(*value),
        Field::Str(text) => Json::String(text.clone()),
        Field::Bytes(bytes) => match String::from_utf8(bytes.data().to_vec()) {
            Ok(text) => Json::String(text),
            Err(_) => return Err("bytes that are not UTF-8".to_owned()),
        },
        Field::Group(row) => {
            let entries = row.get_column_iter().map(|(key, value)| Ok((key.clone(), json(value)?)));
            Json::Object(entries.collect::<Result<_, String>>()?)
        }
        Field::ListInternal(items) => {
            Json::List(items.elements().iter().map(json).collect::<Result<_, _>>()?)
        }
        Field::MapInternal(entries) => {
            let entries = entries.entries().iter().map(|(key, value)| match json(key)? {
                Json::String(key) => Ok((key, json(value)?)),
                _ => Err("a map with keys that are not strings".to_owned()),
            });
            Json::Object(entries.collect::<Result<_, String>>()?)
        }
        other => return Err(format!("a value that JSON cannot represent ({other})")),
    })
}

fn no_column(name: &str, schema: &Type, missing: &MissingColumn) -> DataError {
    let columns: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
    DataError::input(
        name,
        format!("no column `{}`, only {}", missing.column, list(&columns)),
        format!("name the right one with {}", missing.flag),
    )
}

fn flatten<T>(result: Result<Result<T, ParquetError>, String>) -> Result<T, ParquetError> {
    result.unwrap_or_else(|cause| Err(ParquetError::General(contradiction(&cause))))
}

fn contradiction(cause: &str) -> String {
    format!("the file is inconsistent ({cause})")
}

fn damaged(name: &str, error: &ParquetError) -> DataError {
    let cause = error.to_string();
    if cause.contains("codec") || cause.contains("Disabled feature") || cause.contains("LZO") {
        let hint = "rewrite it with a supported codec: snappy, gzip, zstd, lz4 or brotli";
        return DataError::input(name, cause, hint);
    }
    DataError::input(name, cause, "get the file again, or leave it out")
}
