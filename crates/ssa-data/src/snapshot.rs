//! The built-in corpus: this project's own source and documentation.

use std::io::{Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};

use ssa_text::{Document, TextError};

use crate::{DataError, Result};

static SNAPSHOT: &[u8] = include_bytes!("../corpus/snapshot.jsonl.gz");

/// One line of a snapshot.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    text: String,
}

/// Returns the documents of the embedded corpus, sorted by path.
///
/// It is frozen, so that a demo trained on it gives comparable numbers across versions.
/// `corpus/README.md` in this crate describes its content and when to refresh it.
///
/// # Errors
/// [`DataError::Snapshot`] if the program was built with a corrupt file.
pub fn snapshot() -> Result<Vec<Document>> {
    decode_snapshot(SNAPSHOT)
}

/// Reads a snapshot: gzip'd lines of `{"path": .., "text": ..}`.
///
/// # Errors
/// [`DataError::Snapshot`] if the bytes are not such a file, are truncated, or hold no document.
pub fn decode_snapshot(compressed: &[u8]) -> Result<Vec<Document>> {
    let corrupt = |cause: String| DataError::Snapshot {
        cause: format!("damaged: {cause}"),
        hint: "restore crates/ssa-data/corpus/snapshot.jsonl.gz from version control and build \
               again",
    };
    let mut lines = String::new();
    MultiGzDecoder::new(compressed)
        .read_to_string(&mut lines)
        .map_err(|error| corrupt(format!("not a complete gzip file of UTF-8 text ({error})")))?;
    let documents: Vec<Document> = (1..)
        .zip(lines.lines())
        .map(|(number, line)| match serde_json::from_str::<Line>(line) {
            Ok(line) => Ok(Document { name: line.path, text: line.text.into_bytes() }),
            Err(error) => Err(corrupt(format!("line {number} is not a document ({error})"))),
        })
        .collect::<Result<_>>()?;
    if documents.is_empty() {
        Err(corrupt("it holds no document".to_owned()))
    } else {
        Ok(documents)
    }
}

/// Writes documents in the format of [`decode_snapshot`]. The same documents give the same bytes:
/// no time or system is recorded.
///
/// # Errors
/// [`DataError::Text`] for a document that is not UTF-8, [`DataError::Snapshot`] if writing fails.
pub fn encode_snapshot(documents: &[Document], out: impl Write) -> Result<()> {
    let failed = |source: std::io::Error| DataError::Snapshot {
        cause: format!("cannot be written: {source}"),
        hint: "check free space and permissions",
    };
    let mut gzip = GzBuilder::new().mtime(0).write(out, Compression::best());
    for document in documents {
        let path = document.name.clone();
        let text = String::from_utf8(document.text.clone()).map_err(|error| {
            let position = error.utf8_error().valid_up_to();
            TextError::NotUtf8 { name: Some(document.name.clone()), position }
        })?;
        let line = Line { path, text };
        serde_json::to_writer(&mut gzip, &line).map_err(|error| failed(error.into()))?;
        gzip.write_all(b"\n").map_err(failed)?;
    }
    gzip.finish().map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, text: &str) -> Document {
        Document { name: name.to_owned(), text: text.as_bytes().to_vec() }
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn the_embedded_corpus_is_whole_sorted_and_our_own() {
        let documents = snapshot().unwrap();
        assert!(documents.len() >= crate::split::BY_DOCUMENT_FROM, "{} documents", documents.len());
        assert!(documents.is_sorted_by(|a, b| a.name < b.name));
        assert!(documents.iter().all(|document| !document.text.is_empty()));
        assert!(!documents.iter().any(|document| document.name.contains("LICENSE")));
        assert!(
            documents.iter().any(|document| document.name == "crates/ssa-data/src/snapshot.rs")
        );
    }

    #[test]
    fn decoding_undoes_encoding_and_bytes_are_reproducible() {
        let documents =
            [document("a", "one\ntwo \"three\" \u{1F600}\r\n"), document("b/c", "\t\u{0}")];
        let [mut first, mut second] = [Vec::new(), Vec::new()];
        encode_snapshot(&documents, &mut first).unwrap();
        encode_snapshot(&documents, &mut second).unwrap();
        assert_eq!(first, second);
        assert_eq!(first[4..8], [0; 4], "the gzip header has no time");
        assert_eq!(decode_snapshot(&first).unwrap(), documents);
    }

    #[test]
    fn damage_is_named() {
        let whole = gzip("{\"path\":\"a\",\"text\":\"b\"}\n");
        let mut flipped = whole.clone();
        let last_of_checksum = flipped.len() - 5;
        flipped[last_of_checksum] ^= 1;
        for (bytes, cause) in [
            (Vec::new(), "not a complete gzip file"),
            (b"plain text".to_vec(), "not a complete gzip file"),
            (whole[..whole.len() - 9].to_vec(), "not a complete gzip file"),
            (flipped, "not a complete gzip file"),
            (gzip(""), "it holds no document"),
            (
                gzip("{\"path\":\"a\",\"text\":\"b\"}\n{\"path\":\"a\"}\n"),
                "line 2 is not a document (missing field `text`",
            ),
            (
                gzip("{\"path\":\"a\",\"text\":\"b\",\"more\":1}\n"),
                "line 1 is not a document (unknown field `more`",
            ),
        ] {
            let error = decode_snapshot(&bytes).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
            assert!(error.contains("restore crates/ssa-data/corpus/snapshot.jsonl.gz"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let binary = Document { name: "src/x.bin".to_owned(), text: vec![0xff] };
        let error = encode_snapshot(&[binary], Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("src/x.bin: not UTF-8"), "{error}");

        let full: &mut [u8] = &mut [0; 3];
        let error = encode_snapshot(&[document("a", "b")], full).unwrap_err().to_string();
        assert!(error.starts_with("corpus snapshot: cannot be written: "), "{error}");
    }
}
