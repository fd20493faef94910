//! Detects the kind of a file from its first bytes and its extension.
//!
//! Unambiguous first bytes decide (compressed data, Parquet, archives, other binary formats);
//! otherwise the extension does (a JSON object can be text). An extension that contradicts the
//! bytes is an error. Extensions are case-insensitive.

use std::borrow::Cow;
use std::path::Path;

use super::Format;
use super::utf16::{BYTE_ORDER_MARK, is_utf32};

/// Number of bytes at the start of a file that are inspected.
pub(super) const PROBE_BYTES: usize = 1 << 13;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// The content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// One document.
    Text,
    /// One JSON object per line.
    Lines,
    /// JSON objects that span several lines, or an array of them.
    Values,
    /// Rows of a Parquet file.
    Parquet,
}

/// Why a file is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) cause: String,
    pub(super) hint: Cow<'static, str>,
}

impl Refusal {
    fn new(cause: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { cause: cause.into(), hint: hint.into() }
    }
}

const COMPRESSED: [(Compression, &[&str], &[u8]); 4] = [
    (Compression::Gzip, &["gz", "gzip"], b"\x1f\x8b"),
    (Compression::Zstd, &["zst", "zstd"], b"\x28\xb5\x2f\xfd"),
    (Compression::Bzip2, &["bz2"], b"BZh"),
    (Compression::Xz, &["xz"], b"\xfd7zXZ\0"),
];

const JSON: [&str; 4] = ["jsonl", "ndjson", "jsonlines", "json"];
const TEXT: [&str; 4] = ["txt", "text", "md", "markdown"];

const UNPACK: &str = "unpack it and name the files in it";
const TO_JSONL: &str = "convert it to JSON lines or Parquet; or pass --format text to read it as \
                        plain text";
const TO_TEXT: &str = "convert it to plain text first";
const TABLE: &str = "convert it to Parquet or JSON lines first";

/// Known but unsupported kinds of files: extensions, and what to do.
const FOREIGN_ENDINGS: [(&[&str], &str, &str); 9] = [
    (&["csv", "tsv"], "a table of comma- or tab-separated values", TO_JSONL),
    (&["zip", "tar", "tgz", "tbz2", "txz", "7z", "rar"], "an archive", UNPACK),
    (
        &["br", "lz4", "lzma", "sz", "z", "lzo"],
        "an unsupported compression",
        "unpack it, or compress it with gzip or zstd",
    ),
    (
        &["arrow", "feather", "avro", "orc", "h5", "hdf5", "xlsx", "xls", "ods", "sqlite", "db"],
        "an unsupported table format",
        TABLE,
    ),
    (&["pdf", "epub", "docx", "doc", "odt", "rtf", "pptx"], "an office document", TO_TEXT),
    (
        &["pkl", "pickle", "npy", "npz", "pt", "pth", "safetensors", "gguf", "bin", "idx"],
        "binary data",
        "leave it out",
    ),
    (
        &["html", "htm", "xhtml"],
        "a markup file",
        "extract its text; or pass --format text to read it as it is",
    ),
    (&["ipynb"], "a notebook", "convert it with `jupyter nbconvert --to markdown`"),
    (
        &["png", "jpg", "jpeg", "gif", "webp", "mp3", "wav", "mp4"],
        "an image, audio or video file",
        "leave it out",
    ),
];

/// Unsupported kinds by their first bytes.
const FOREIGN_BYTES: [(&[u8], &str, &str); 17] = [
    (b"PK\x03\x04", "a ZIP archive or office document", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (b"\x04\x22\x4d\x18", "compressed by lz4", "unpack it with `lz4 -d`"),
    (b"ARROW1\0\0", "an Arrow file", TABLE),
    (b"FEA1", "a Feather file", TABLE),
    (b"Obj\x01", "an Avro file", TABLE),
    (b"ORC", "an ORC file", TABLE),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", TABLE),
    (b"SQLite format 3\0", "an SQLite database", TABLE),
    (b"%PDF-", "a PDF document", TO_TEXT),
    (b"{\\rtf", "an RTF document", TO_TEXT),
    (b"\x93NUMPY", "a NumPy array", "leave it out"),
    (b"GGUF", "a GGUF model", "leave it out"),
    (b"\x7fELF", "a program", "leave it out"),
    (b"\x89PNG\r\n\x1a\n", "an image", "leave it out"),
    (b"\xff\xd8\xff", "an image", "leave it out"),
];

/// The extension of a name in lower case; empty without one.
fn ending(name: &str) -> String {
    let extension = Path::new(name).extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}

/// A name without the extension of its compression, and that compression.
fn split_name(name: &str) -> (&str, Compression) {
    let ending = ending(name);
    let compression = COMPRESSED.iter().find(|(_, endings, _)| endings.contains(&&*ending));
    match compression {
        Some(&(compression, ..)) => (&name[..name.len() - ending.len() - 1], compression),
        None => (name, Compression::None),
    }
}

/// The compression of a file, from its name and first bytes.
pub(super) fn compression(name: &str, start: &[u8]) -> Result<Compression, Refusal> {
    let found = COMPRESSED.iter().find(|(_, _, magic)| start.starts_with(magic));
    let found = found.map_or(Compression::None, |&(compression, ..)| compression);
    let promised = split_name(name).1;
    if promised != Compression::None && promised != found {
        return Err(Refusal::new(
            format!("its name ends with .{}, but its first bytes do not match", ending(name)),
            "get the file again, or leave it out",
        ));
    }
    Ok(found)
}

/// The content of a file, from its name and its first bytes after decompression and conversion to
/// UTF-8.
pub(super) fn content(
    name: &str,
    start: &[u8],
    compression: Compression,
    format: Format,
) -> Result<Content, Refusal> {
    let stem = split_name(name).0;
    let ending = ending(stem);
    let is = |endings: &[&str]| endings.contains(&&*ending);
    if start.starts_with(b"PAR1") || ending == "parquet" {
        if compression == Compression::None {
            return Ok(Content::Parquet);
        }
        return Err(Refusal::new("a Parquet file inside a compressed one", "unpack it first"));
    }
    if COMPRESSED.iter().any(|(_, _, magic)| start.starts_with(magic)) {
        return Err(Refusal::new("compressed twice", "unpack it once"));
    }
    if is_utf32(start) {
        return Err(Refusal::new("text in UTF-32", "convert it to UTF-8, for example with iconv"));
    }
    if start.get(257..262) == Some(b"ustar") {
        return Err(Refusal::new("a tar archive", UNPACK));
    }
    if let Some((_, what, hint)) = FOREIGN_BYTES.iter().find(|(magic, ..)| start.starts_with(magic))
    {
        return Err(Refusal::new(*what, *hint));
    }
    match format {
        Format::Text => Ok(Content::Text),
        Format::Jsonl => Ok(json(start)),
        Format::Auto if is(&JSON) => Ok(json(start)),
        Format::Auto if is(&TEXT) => Ok(Content::Text),
        Format::Auto => match FOREIGN_ENDINGS.iter().find(|(endings, ..)| is(endings)) {
            Some((_, what, hint)) => Err(Refusal::new(*what, *hint)),
            None if is_object_on_a_line(start) => Ok(Content::Lines),
            None => Ok(Content::Text),
        },
    }
}

/// Whether a file in a directory is read, in addition to having a supported content. A single
/// `.json` file usually describes the other files.
pub(super) fn is_taken_in_directory(
    name: &str,
    start: &[u8],
    content: Content,
    format: Format,
) -> bool {
    let ending = ending(split_name(name).0);
    match format {
        Format::Auto => content == Content::Parquet || (ending != "json" && !start.contains(&0)),
        Format::Text => !start.contains(&0),
        Format::Jsonl => JSON.contains(&&*ending),
    }
}

/// Whether a file holds documents, by its name alone: for file lists on the Hub. Dataset cards are
/// excluded.
pub(super) fn is_data_by_name(name: &str, format: Format) -> bool {
    let stem = split_name(name).0;
    let ending = ending(stem);
    let is_card = Path::new(stem).file_name().is_some_and(|name| name == "README.md");
    let (lines, text) = (JSON[..3].contains(&&*ending), TEXT.contains(&&*ending));
    match format {
        Format::Auto => (lines || text || ending == "parquet") && !is_card,
        Format::Text => !is_card,
        Format::Jsonl => lines || ending == "json",
    }
}

/// The layout of JSON: one object per line, unless the file is an array or its first object spans
/// several lines.
fn json(start: &[u8]) -> Content {
    let start = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start).trim_ascii_start();
    let ends_first = first_value_end(start);
    let on_one_line = !start[..ends_first.unwrap_or(start.len())].contains(&b'\n');
    if start.starts_with(b"[") || (start.starts_with(b"{") && !on_one_line) {
        Content::Values
    } else {
        Content::Lines
    }
}

/// Whether the first line is a complete JSON object; plain text does not start like this.
fn is_object_on_a_line(start: &[u8]) -> bool {
    let start = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start).trim_ascii_start();
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    line.starts_with(b"{\"")
        && first_value_end(line).is_some_and(|end| line[end..].trim_ascii().is_empty())
}

/// The end of the object or array at the start of a text.
fn first_value_end(text: &[u8]) -> Option<usize> {
    let mut scan = super::values::Scan::default();
    text.iter().position(|&byte| scan.ends_with(byte)).map(|at| at + 1)
}
