use std::fs;
use std::io::Write;
use std::path::Path;

use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::*;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap()
}

/// Values of a column, their definition levels and their repetition levels.
type Column<'a> = (&'a [ByteArray], &'a [i16], Option<&'a [i16]>);

/// A Parquet file with a number, a text that may be missing, and a conversation.
fn parquet(compression: ::parquet::basic::Compression) -> Vec<u8> {
    let schema =
        "message rows { required int64 id; optional binary text (STRING); optional group chat (LIST) {
        repeated group list { optional group element {
            optional binary role (STRING); optional binary content (STRING); } } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    for _ in 0..2 {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1, 2, 3], None, None).unwrap();
        column.close().unwrap();
        let texts = ["one", "three"].map(ByteArray::from);
        let roles = ["user", "assistant", "user"].map(ByteArray::from);
        let contents = ["Hi", "Hello", "Bye"].map(ByteArray::from);
        let columns: [Column<'_>; 3] = [
            (&texts, &[1, 0, 1], None),
            (&roles, &[4, 4, 0, 4], Some(&[0, 1, 0, 0])),
            (&contents, &[4, 4, 0, 4], Some(&[0, 1, 0, 0])),
        ];
        for (values, definition, repetition) in columns {
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<ByteArrayType>()
                .write_batch(values, Some(definition), repetition)
                .unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

fn read(inputs: &[&Path], options: &InputOptions) -> Result<Vec<(String, String)>> {
    let inputs: Vec<PathBuf> = inputs.iter().map(|path| path.to_path_buf()).collect();
    let sources = find_sources(&inputs, options)?;
    documents(&sources, options, &Tokenizer::Bytes)
        .map(|document| {
            document.map(|document| (document.name, String::from_utf8(document.text).unwrap()))
        })
        .collect()
}

fn texts(inputs: &[&Path], options: &InputOptions) -> Vec<String> {
    read(inputs, options).unwrap().into_iter().map(|(_, text)| text).collect()
}

fn message(path: &Path, options: &InputOptions) -> String {
    read(&[path], options).unwrap_err().to_string()
}

const LINES: &[u8] = b"\xef\xbb\xbf{\"text\":\"one\"}\n\n{\"id\":[1,{\"a\":null}],\"text\":\"t\\u0077o\\n\"}\n{\"text\":\"\"}\n{\"text\":null}\n{\"text\":\"last\"}";

#[test]
fn every_kind_of_file_gives_its_documents() {
    let options = InputOptions::default();
    let folder = folder(&[
        ("a.txt", b"plain"),
        ("b.md", b"# mark"),
        ("c.txt.gz", &gzip(b"gzipped")),
        ("d.jsonl", LINES),
        ("e.jsonl.gz", &[gzip(&LINES[..30]), gzip(&LINES[30..])].concat()),
        ("f.ndjson.zst", &[zstd(&LINES[..30]), zstd(&LINES[30..])].concat()),
        ("g.parquet", &parquet(::parquet::basic::Compression::SNAPPY)),
        ("info.json", b"passed over"),
        ("other.rs", b"passed over"),
        ("empty.txt", b""),
        (".hidden.txt", b"hidden"),
    ]);
    let expected = [
        "plain", "# mark", "gzipped", "one", "two\n", "last", "one", "two\n", "last", "one",
        "two\n", "last", "one", "three", "one", "three",
    ];
    assert_eq!(texts(&[folder.path()], &options), expected);
    let sources = find_sources(&[folder.path().to_owned()], &options).unwrap();
    assert_eq!(
        sources.skipped,
        ["empty.txt", "info.json", "other.rs"].map(|name| folder.path().join(name))
    );
    assert!(sources.bytes() > 500);

    let names: Vec<_> = read(&[&folder.path().join("d.jsonl")], &options).unwrap();
    assert_eq!(names[1].0, format!("{}, line 3", folder.path().join("d.jsonl").display()));
    let names: Vec<_> = read(&[&folder.path().join("g.parquet")], &options).unwrap();
    assert_eq!(names[1].0, format!("{}, row 3", folder.path().join("g.parquet").display()));
}

#[test]
fn conversations_are_read_from_lines_and_rows() {
    let line =
        br#"{"chat":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]}"#;
    let options =
        InputOptions { conversations_field: Some("chat".to_owned()), ..InputOptions::default() };
    for compression in [
        ::parquet::basic::Compression::UNCOMPRESSED,
        ::parquet::basic::Compression::SNAPPY,
        ::parquet::basic::Compression::GZIP(::parquet::basic::GzipLevel::default()),
        ::parquet::basic::Compression::ZSTD(::parquet::basic::ZstdLevel::default()),
    ] {
        let folder = folder(&[("a.jsonl", line), ("b.parquet", &parquet(compression))]);
        let both = "user: Hi\n\nassistant: Hello\n\n";
        assert_eq!(
            texts(&[folder.path()], &options),
            [both, both, "user: Bye\n\n", both, "user: Bye\n\n"]
        );
    }
}

#[test]
fn formats_patterns_and_repeated_names() {
    let folder = folder(&[
        ("a.rs", b"fn"),
        ("a.json", b"{\"text\":\"j\"}"),
        ("b.txt", b"{\"text\":\"json\"}"),
        ("d/c.bin", b"\0"),
        ("d/e[1].txt", b"e"),
    ]);
    let auto = InputOptions::default();
    let text = InputOptions { format: Format::Text, ..auto.clone() };
    let jsonl = InputOptions { format: Format::Jsonl, ..auto.clone() };
    let at = |name: &str| folder.path().join(name);
    assert_eq!(
        texts(&[folder.path()], &text),
        ["{\"text\":\"j\"}", "fn", "{\"text\":\"json\"}", "e"]
    );
    assert_eq!(texts(&[folder.path()], &jsonl), ["j"]);
    assert_eq!(texts(&[&at("a.json")], &auto), ["j"]);
    assert_eq!(texts(&[&at("b.txt")], &jsonl), ["json"]);
    assert_eq!(texts(&[&at("a.rs")], &auto), ["fn"], "a file that is named is taken");
    assert_eq!(
        texts(&[&at("d/e[1].txt"), &at("*.txt"), folder.path()], &auto),
        ["e", "{\"text\":\"json\"}"]
    );
    assert_eq!(texts(&[&at("**/e*")], &auto), ["e"]);
    assert_eq!(texts(&[&at("?")], &auto), ["e"], "a folder that matches is walked");
}

#[test]
fn progress_ends_at_the_size_of_the_file() {
    let folder = folder(&[
        ("a.jsonl", LINES),
        ("b.jsonl.zst", &zstd(LINES)),
        ("c.parquet", &parquet(::parquet::basic::Compression::SNAPPY)),
    ]);
    let options = InputOptions::default();
    for source in find_sources(&[folder.path().to_owned()], &options).unwrap().sources {
        let read = Arc::new(AtomicU64::new(0));
        source
            .records(&options, Arc::clone(&read))
            .unwrap()
            .for_each(|record| drop(record.unwrap()));
        assert_eq!(Some(read.load(Ordering::Relaxed)), source.bytes(), "{}", source.name());
    }
}

#[test]
fn inputs_that_name_nothing_are_faults() {
    let folder = folder(&[("empty.txt", b""), ("d/x.rs", b"fn"), ("d/.hidden.txt", b"h")]);
    let options = InputOptions::default();
    let at = |name: &str| folder.path().join(name);
    assert!(find_sources(&[], &options).unwrap_err().to_string().starts_with("no path was given"));
    assert!(message(&at("none"), &options).contains("none: no such file or directory"));
    assert!(message(&at("empty.txt"), &options).contains("empty.txt: the file is empty"));
    assert!(message(&at("d"), &options).contains("/d: nothing to read; .txt, .md, .jsonl"));
    assert!(
        message(&at("*.none"), &options).contains("*.none: no file matches; check the pattern")
    );
    assert!(message(&at("[.none"), &options).contains("[.none: Pattern syntax error"));
    let error = message(Path::new("-"), &options);
    assert_eq!(error, "`format` is auto, expected text or jsonl for the standard input");
}

#[test]
fn bad_lines_are_named_by_number() {
    let options = InputOptions::default();
    let chat = InputOptions { conversations_field: Some("chat".to_owned()), ..options.clone() };
    for (line, options, cause) in [
        (&b"nonsense"[..], &options, "no JSON object with such a `text` (expected"),
        (b"[1]", &options, "no JSON object with such a `text` (invalid type"),
        (b"{\"text\":\"a\"", &options, "no JSON object with such a `text` (EOF"),
        (b"{\"text\":\"a\"} x", &options, "no JSON object with such a `text` (trailing"),
        (b"{\"text\":1}", &options, "no JSON object with such a `text` (invalid type: integer"),
        (b"{\"text\":\"\xff\"}", &options, "no JSON object with such a `text` (invalid unicode"),
        (
            b"{\"body\":\"a\",\"id\":1}",
            &options,
            "no key `text`, only `body`, `id`; name the right one with `text_field`",
        ),
        (b"{}", &options, "no key `text`, only nothing"),
        (
            b"{\"text\":\"a\"}",
            &chat,
            "no key `chat`, only `text`; name the right one with `conversations_field`",
        ),
        (
            b"{\"chat\":[{\"role\":\"a\"}]}",
            &chat,
            "no JSON object with such a `chat` (missing field `content`",
        ),
    ] {
        let folder = folder(&[("x.jsonl", &[b"{\"text\":\"a\",\"chat\":null}\n", line].concat())]);
        let path = folder.path().join("x.jsonl");
        let error = message(&path, options);
        assert!(error.starts_with(&format!("{}, line 2: {cause}", path.display())), "{error}");
    }
}

#[test]
fn damaged_files_are_named() {
    let options = InputOptions::default();
    let lines: Vec<u8> =
        (0..1000).flat_map(|n| format!("{{\"text\":\"{n}\"}}\n").into_bytes()).collect();
    let whole = parquet(::parquet::basic::Compression::SNAPPY);
    let mut bad_header = whole.clone();
    let text = bad_header.windows(3).position(|bytes| bytes == b"one").unwrap();
    bad_header[text - 20..text].fill(0xff);
    for (name, bytes, cause) in [
        ("x.jsonl.gz", gzip(&lines)[..200].to_vec(), "the compressed file ends too early"),
        ("x.txt.gz", gzip(&lines)[..200].to_vec(), "the compressed file ends too early"),
        ("x.txt.gz", lines.clone(), "invalid gzip header"),
        ("x.jsonl.zst", zstd(&lines)[..40].to_vec(), ""),
        ("x.jsonl.zst", lines.clone(), ""),
        ("x.parquet", whole[..whole.len() - 1].to_vec(), "Parquet error"),
        ("x.parquet", lines.clone(), "Parquet error"),
        ("x.parquet", vec![0], ""),
        ("x.parquet", bad_header, ""),
    ] {
        let folder = folder(&[(name, &bytes)]);
        let path = folder.path().join(name);
        let error = message(&path, &options);
        assert!(error.starts_with(&format!("{}: {cause}", path.display())), "{error}");
        assert!(error.ends_with("get the file again, or leave it out"), "{error}");
    }
}

#[test]
fn no_damage_to_a_parquet_file_ends_the_program() {
    let whole = parquet(::parquet::basic::Compression::SNAPPY);
    let folder = folder(&[]);
    let path = folder.path().join("x.parquet");
    let options = InputOptions::default();
    for at in (0..whole.len()).step_by(2) {
        let mut bytes = whole.clone();
        bytes[at] ^= [0x01, 0x80, 0xff][at % 3];
        fs::write(&path, bytes).unwrap();
        let _ = read(&[&path], &options);
    }
}

#[test]
fn columns_that_are_not_there_or_of_another_kind_are_named() {
    let folder = folder(&[("x.parquet", &parquet(::parquet::basic::Compression::SNAPPY))]);
    let path = folder.path().join("x.parquet");
    let text =
        |field: &str| InputOptions { text_field: field.to_owned(), ..InputOptions::default() };
    let chat = |field: &str| InputOptions {
        conversations_field: Some(field.to_owned()),
        ..InputOptions::default()
    };
    for (options, cause) in [
        (
            text("body"),
            ": no column `body`, only `id`, `text`, `chat`; name the right one with `text_field`",
        ),
        (
            chat("body"),
            ": no column `body`, only `id`, `text`, `chat`; name the right one with `conversations_field`",
        ),
        (text("id"), ", row 1: the column holds no text; name one that does with `text_field`"),
        (text("chat"), ", row 1: the column holds no text"),
        (chat("text"), ", row 1: the column holds no list of {role, content}"),
    ] {
        let error = message(&path, &options);
        assert!(error.starts_with(&format!("{}{cause}", path.display())), "{error}");
    }
}

#[test]
fn a_document_is_as_large_as_allowed_and_no_larger() {
    let text = "x".repeat(100);
    let line = format!("{{\"text\":\"{text}\"}}");
    let parquet = parquet(::parquet::basic::Compression::SNAPPY);
    let folder = folder(&[
        ("a.txt", text.as_bytes()),
        ("b.jsonl", line.as_bytes()),
        ("c.parquet", &parquet),
    ]);
    for (name, limit) in [("a.txt", 100), ("b.jsonl", line.len() as u64), ("c.parquet", 5)] {
        let path = folder.path().join(name);
        let options = InputOptions { max_document_bytes: limit, ..InputOptions::default() };
        assert!(read(&[&path], &options).is_ok(), "{name}");
        let options = InputOptions { max_document_bytes: limit - 1, ..options };
        let error = message(&path, &options);
        assert!(error.starts_with(&format!("{}: a document ", path.display())), "{error}");
        assert!(
            error.contains(&format!("is larger than {} bytes; split it", limit - 1)),
            "{error}"
        );
    }
}
