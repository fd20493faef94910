use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap()
}

/// Values of a column, with definition and repetition levels.
type Column<'a> = (&'a [ByteArray], &'a [i16], Option<&'a [i16]>);

/// A Parquet file with a number, a text that may be missing, and a conversation.
fn parquet(compression: ::parquet::basic::Compression) -> Vec<u8> {
    let schema = "message rows { required int64 id; optional binary text (STRING);
        optional group chat (LIST) {
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

const LINES: &[u8] = b"\xef\xbb\xbf{\"text\":\"one\"}\n\n\
    {\"id\":[1,{\"a\":null}],\"text\":\"t\\u0077o\\n\"}\n\
    {\"text\":\"\"}\n{\"text\":null}\n{\"text\":\"last\"}";

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
        ("h.txt.bz2", &bzip2(b"bzipped")),
        ("i.TXT", b"upper"),
        ("j.rs", b"fn"),
        ("info.json", b"skipped"),
        ("other.csv", b"a,b"),
        ("empty.txt", b""),
        (".hidden.txt", b"hidden"),
    ]);
    let expected = [
        "plain", "# mark", "gzipped", "one", "two\n", "last", "one", "two\n", "last", "one",
        "two\n", "last", "one", "three", "one", "three", "bzipped", "upper", "fn",
    ];
    assert_eq!(texts(&[folder.path()], &options), expected);
    let sources = find_sources(&[folder.path().to_owned()], &options).unwrap();
    assert_eq!(
        sources.skipped,
        ["empty.txt", "info.json", "other.csv"].map(|name| folder.path().join(name))
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
        ::parquet::basic::Compression::BROTLI(::parquet::basic::BrotliLevel::default()),
        ::parquet::basic::Compression::LZ4,
        ::parquet::basic::Compression::LZ4_RAW,
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
    assert_eq!(texts(&[&at("a.rs")], &auto), ["fn"], "an explicitly named file is read");
    assert_eq!(
        texts(&[&at("d/e[1].txt"), &at("*.txt"), folder.path()], &auto),
        ["e", "{\"text\":\"json\"}", "fn"]
    );
    assert_eq!(texts(&[&at("**/e*")], &auto), ["e"]);
    assert_eq!(texts(&[&at("?")], &auto), ["e"], "a matching folder is walked");
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
fn inputs_without_files_are_errors() {
    let folder = folder(&[("empty.txt", b""), ("d/x.csv", b"a,b"), ("d/.hidden.txt", b"h")]);
    let options = InputOptions::default();
    let at = |name: &str| folder.path().join(name);
    assert!(find_sources(&[], &options).unwrap_err().to_string().starts_with("no path was given"));
    assert!(message(&at("none"), &options).contains("none: no such file or directory"));
    assert!(message(&at("empty.txt"), &options).contains("empty.txt: the file is empty"));
    assert!(
        message(&at("d"), &options)
            .contains("/d: nothing to read: hidden entries and empty, binary or unsupported")
    );
    assert!(
        message(&at("*.none"), &options)
            .contains("*.none: no file matches\nhint: check the pattern")
    );
    assert!(
        message(&at("[.none"), &options)
            .contains("[.none: invalid pattern: unclosed character class")
    );
    let error = message(Path::new("-"), &options);
    assert_eq!(error, "`format` is auto, expected text or jsonl for standard input");
}

#[test]
fn bad_lines_are_named_by_number() {
    let options = InputOptions::default();
    let chat = InputOptions { conversations_field: Some("chat".to_owned()), ..options.clone() };
    for (line, options, cause) in [
        (&b"nonsense"[..], &options, "not valid JSON: expected"),
        (b"[1]", &options, "an array, expected a JSON object"),
        (b"{\"text\":\"a\"", &options, "not valid JSON: EOF"),
        (b"{\"text\":\"a\"} x", &options, "not valid JSON: trailing"),
        (b"{\"text\":1}", &options, "`text` is a number, expected a string"),
        (b"{\"text\":\"\xff\"}", &options, "not valid JSON: invalid unicode"),
        (
            b"{\"body\":\"a\",\"id\":1}",
            &options,
            "no key `text`, only `body`, `id`\nhint: name the right one with --text-field",
        ),
        (b"{}", &options, "no key `text`, only nothing"),
        (
            b"{\"text\":\"a\"}",
            &chat,
            "no key `chat`, only `text`\nhint: name the right one with --conversations-field",
        ),
        (b"{\"chat\":[{\"content\":\"a\"}]}", &chat, "message 0 has no `role`"),
        (b"{\"chat\":\"a\"}", &chat, "`chat`: expected a list of messages, found a string"),
        (b"{\"chat\":[\"a\"]}", &chat, "`chat`: message 0 is a string, expected an object"),
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
        ("x.jsonl.gz", gzip(&lines)[..200].to_vec(), "the compressed file is truncated"),
        ("x.txt.gz", gzip(&lines)[..200].to_vec(), "the compressed file is truncated"),
        ("x.txt.gz", lines.clone(), "its name ends with .gz, but its first bytes do not match"),
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
        assert!(error.ends_with("\nhint: get the file again, or leave it out"), "{error}");
    }
}

#[test]
fn no_damage_to_a_parquet_file_ends_the_program() {
    let whole = parquet(::parquet::basic::Compression::SNAPPY);
    let folder = folder(&[]);
    let path = folder.path().join("x.parquet");
    let options = InputOptions::default();
    let whole_texts = {
        fs::write(&path, &whole).unwrap();
        texts(&[&path], &options)
    };
    let (mut refused, mut read_anyway) = (0, 0);
    for at in (0..whole.len()).step_by(2) {
        let mut bytes = whole.clone();
        bytes[at] ^= [0x01, 0x80, 0xff][at % 3];
        fs::write(&path, bytes).unwrap();
        match read(&[&path], &options) {
            Err(error) => {
                let error = error.to_string();
                assert!(error.starts_with(&format!("{}", path.display())), "{error}");
                refused += 1;
            }
            // Damage to statistics or other columns changes nothing; damage to the text is
            // detected.
            Ok(documents) => {
                assert!(documents.len() <= whole_texts.len());
                read_anyway += 1;
            }
        }
    }
    assert!(refused > 100, "{refused} refused, {read_anyway} read");
}

#[test]
fn missing_columns_and_wrong_types_are_named() {
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
            ": no column `body`, only `id`, `text`, `chat`\nhint: name the right one with \
             --text-field",
        ),
        (
            chat("body"),
            ": no column `body`, only `id`, `text`, `chat`\nhint: name the right one with \
             --conversations-field",
        ),
        (
            text("id"),
            ", row 1: the column `id` is not text\nhint: name a text column with --text-field",
        ),
        (text("chat"), ", row 1: the column `chat` is not text"),
        (chat("text"), ", row 1: `text`: expected a list of messages, found a string"),
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
        assert!(!read(&[&path], &options).unwrap().is_empty(), "{name}");
        let options = InputOptions { max_document_bytes: limit - 1, ..options };
        let error = message(&path, &options);
        assert!(error.starts_with(&format!("{}: a document ", path.display())), "{error}");
        assert!(
            error.contains(&format!("is larger than {} bytes\nhint: split it", limit - 1)),
            "{error}"
        );
    }
}

#[test]
fn content_and_ending_decide_together() {
    let object = b"{\"text\":\"one\"}\n{\"text\":\"two\"}\n";
    let utf16: Vec<u8> =
        str::from_utf8(object).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let both = ["one", "two"];
    let options = InputOptions::default();
    for (name, bytes) in [
        ("a.JSONL", object.to_vec()),
        ("a.jsonl", gzip(object)),
        ("a.Jsonl.GZ", gzip(object)),
        ("a.jsonl.bz2", bzip2(object)),
        ("part-00000", object.to_vec()),
        ("a.jsonl.1", object.to_vec()),
        ("a.json", b"[{\"text\":\"one\"}, {\"text\":\"two\"}]".to_vec()),
        (
            "a.json",
            b"[\n {\n \"text\": \"one\" }\n,\n{\"text\":\"two\", \"x\": [\"]\"]}\n]\n".to_vec(),
        ),
        ("a.json", b"{\n \"text\": \"one\"\n}\n{\n \"text\": \"two\"\n}".to_vec()),
        ("a.jsonl", utf16.clone()),
        ("a.jsonl", [b"\xff\xfe", &utf16[..]].concat()),
        ("a.jsonl.gz", gzip(&utf16)),
        (
            "a.jsonl",
            b"{\"text\":\"one\",\"score\":NaN}\n{\"score\":-Infinity,\"text\":\"two\"}".to_vec(),
        ),
    ] {
        let folder = folder(&[(name, &bytes)]);
        assert_eq!(texts(&[&folder.path().join(name)], &options), both, "{name}");
        assert_eq!(read_documents(&[folder.path().join(name)]).unwrap().len(), 2, "{name}");
    }
    for (name, bytes, cause) in [
        ("a.csv", &b"text\none"[..], "a table of comma- or tab-separated values\nhint: convert it"),
        ("a.txt", b"PK\x03\x04...", "a ZIP archive or office document\nhint: unpack it"),
        ("a.zip", b"x", "an archive\nhint: unpack it"),
        ("a.pdf", b"%PDF-1.5", "a PDF document\nhint: convert it"),
        ("a.jsonl.lz4", b"\x04\x22\x4d\x18", "compressed by lz4\nhint: unpack it with `lz4 -d`"),
        ("a.txt.br", b"x", "an unsupported compression\nhint: unpack it"),
        ("a.ipynb", b"{\n}", "a notebook\nhint: convert it"),
        ("a.arrow", b"ARROW1\0\0", "an Arrow file\nhint: convert it to Parquet"),
        ("a.json", b"[1, 2]", "expected JSON objects, or an array of them\nhint: "),
        ("a.json", b"[{\"text\":\"one\"}", "the file ends inside its array\nhint: "),
        ("a.json", b"[{\"text\":\n\"one\"", "the file ends inside an object\nhint: "),
    ] {
        let folder = folder(&[(name, bytes)]);
        let path = folder.path().join(name);
        let error = message(&path, &options);
        assert!(error.starts_with(&format!("{}: {cause}", path.display())), "{error}");
    }
    let twice = gzip(&gzip(object));
    let folder = folder(&[("a.jsonl.gz", &twice), ("b.csv", b"text")]);
    let error = message(&folder.path().join("a.jsonl.gz"), &options);
    assert!(error.contains("compressed twice"), "{error}");
    let text = InputOptions { format: Format::Text, ..options };
    assert_eq!(texts(&[&folder.path().join("b.csv")], &text), ["text"]);
}

#[test]
fn long_windows_of_zstd_are_read() {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(30).unwrap();
    encoder.write_all(b"{\"text\":\"long\"}\n").unwrap();
    let folder = folder(&[("a.jsonl.zst", &encoder.finish().unwrap())]);
    let options = InputOptions::default();
    assert_eq!(texts(&[&folder.path().join("a.jsonl.zst")], &options), ["long"]);
}

#[test]
fn fields_are_found_by_paths() {
    let line = br#"{"data": {"body": "nested", "x.y": "dotted"}, "a.b": "literal", "c": {"d": 1}}"#;
    let folder = folder(&[("x.jsonl", line)]);
    let path = folder.path().join("x.jsonl");
    let options =
        |field: &str| InputOptions { text_field: field.to_owned(), ..InputOptions::default() };
    for (field, text) in [("data.body", "nested"), ("data.x.y", "dotted"), ("a.b", "literal")] {
        assert_eq!(texts(&[&path], &options(field)), [text]);
    }
    for (field, cause) in [
        ("data.none", "no key `data.none`, only `body`, `x.y` in `data`\nhint: "),
        ("c.d", "`c.d` is a number, expected a string"),
        ("a.b.c", "no key `a.b.c`, only `data`, `a.b`, `c`"),
    ] {
        let error = message(&path, &options(field));
        assert!(error.contains(cause), "{error}");
    }
    fs::write(&path, r#"{"a": {"b": "x"}, "a.b": "y"}"#).unwrap();
    let error = message(&path, &options("a.b"));
    assert!(error.contains("`a.b` is a key, and `b` is one in `a`"), "{error}");
}

#[cfg(unix)]
#[test]
fn patterns_match_names_that_are_not_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder =
        folder(&[("a.jsonl", b"{\"text\":\"one\"}"), (".b.jsonl", b"{}"), ("c.txt", b"c")]);
    let odd = folder.path().join(OsStr::from_bytes(b"caf\xe9.jsonl"));
    fs::write(odd, "{\"text\":\"two\"}").unwrap();
    let options = InputOptions::default();
    assert_eq!(texts(&[&folder.path().join("*.jsonl")], &options), ["one", "two"]);
    assert_eq!(texts(&[&folder.path().join("{a,x}.*")], &options), ["one"]);
}

#[test]
fn whole_messages_reach_the_template() {
    let template = "{% for m in messages %}{{ m.role }}:{{ m.content }}\
        {{ m.tool_calls | tojson }}{% endfor %}{{ tools | tojson }}";
    let folder = folder(&[
        (
            "tokenizer.json",
            br#"{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel",
            "vocab": {"</s>": 0}, "unk_token": "</s>"}}"#,
        ),
        ("chat_template.jinja", template.as_bytes()),
        (
            "c.jsonl",
            br#"{"messages": [{"role": "u", "content": null, "tool_calls": [{"z": 1, "a": "<"}]}],
            "tools": "[{\"name\": \"t\"}]"}"#
                .as_slice(),
        ),
    ]);
    let lines = fs::read_to_string(folder.path().join("c.jsonl")).unwrap().replace('\n', " ");
    fs::write(folder.path().join("c.jsonl"), lines).unwrap();
    let tokenizer = Tokenizer::load(folder.path(), None).unwrap();
    let options = InputOptions {
        conversations_field: Some("messages".to_owned()),
        ..InputOptions::default()
    };
    let sources = find_sources(&[folder.path().join("c.jsonl")], &options).unwrap();
    let texts: Vec<_> = documents(&sources, &options, &tokenizer)
        .map(|document| String::from_utf8(document.unwrap().text).unwrap())
        .collect();
    assert_eq!(texts, ["u:None[{\"z\": 1, \"a\": \"<\"}][{\"name\": \"t\"}]"]);
}
