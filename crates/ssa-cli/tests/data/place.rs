//! Shared helpers: a working directory and its files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Run, command, ssa};

/// A fresh directory in which the program runs.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// A directory that [`workplace`](crate::common::workplace) has filled.
    pub(crate) fn of(directory: TempDir) -> Self {
        Self { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Runs the program with arguments separated by spaces.
    pub(crate) fn ssa(&self, arguments: &str) -> Run {
        ssa(self.path(), arguments.split_whitespace())
    }

    /// Runs the program and returns its JSON output.
    pub(crate) fn json(&self, arguments: &str) -> Value {
        let run = self.ssa(&format!("{arguments} --json")).succeeds();
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// Runs the program with a text as its standard input.
    pub(crate) fn ssa_reading(&self, input: &[u8], arguments: &str) -> Run {
        let mut command = command(self.path());
        command.args(arguments.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The files of a directory with their contents.
    pub(crate) fn files(&self, directory: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.at(directory)).unwrap().map(|entry| entry.unwrap());
        let file = |entry: fs::DirEntry| {
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        };
        entries.map(file).collect()
    }
}

/// A JSON line with a text.
pub(crate) fn line(text: &str) -> String {
    json!({ "text": text }).to_string() + "\n"
}

pub(crate) fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

pub(crate) fn zstd(text: &str) -> Vec<u8> {
    ::zstd::encode_all(text.as_bytes(), 1).unwrap()
}

/// A Parquet file with one column of texts.
pub(crate) fn parquet(column: &str, texts: &[&str]) -> Vec<u8> {
    let schema = format!("message rows {{ required binary {column} (STRING); }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts: Vec<ByteArray> = texts.iter().map(|&text| text.into()).collect();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

/// Documents of different lengths, made of words that repeat, as JSON lines.
pub(crate) fn lines(documents: usize) -> String {
    let words =
        ["sparse", "attention", "reads", "few", "blocks,", "and", "full", "all", "of", "them.\n"];
    let text = |document: usize| -> String {
        let length = 5 + document * 7919 % 400;
        (0..length)
            .map(|word| format!("{} ", words[(document * 31 + word * word) % words.len()]))
            .collect()
    };
    (0..documents).map(|document| line(&text(document))).collect()
}

/// The texts of the rows that `ssa data inspect --json` shows, by document.
pub(crate) fn row_texts(inspected: &Value) -> Vec<Vec<String>> {
    let pieces = |row: &Value| -> Vec<String> {
        row.as_array()
            .unwrap()
            .iter()
            .map(|piece| piece["text"].as_str().unwrap().to_owned())
            .collect()
    };
    inspected["rows"].as_array().unwrap().iter().map(pieces).collect()
}
