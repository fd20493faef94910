//! Inputs of `ssa data`.

use serde_json::json;

use crate::common::workplace;
use crate::place::{Place, gzip, line, parquet, row_texts, zstd};

/// All documents of a corpus, in file order.
fn texts(place: &Place, corpus: &str) -> Vec<String> {
    let shown = place.json(&format!(
        "data inspect {corpus} --rows 1000 --sequence-length 256 --packing best-fit"
    ));
    assert_eq!(shown["check"], "checksums");
    let mut texts = row_texts(&shown).concat();
    texts.sort();
    texts
}

#[test]
fn files_directories_and_patterns_are_read() {
    let place = Place::new();
    place.write("in/a.txt", "plain");
    place.write("in/b.md", "# heading");
    place.write("in/deep/c.jsonl", line("one") + "\n" + &line("two"));
    place.write("in/d.jsonl.gz", gzip(&line("gzipped")));
    place.write("in/e.jsonl.zst", zstd(&line("zstd")));
    place.write("in/f.parquet", parquet("text", &["row 1", "row 2"]));
    place.write("in/notes.html", "<p>");
    place.write("more/x1.txt", "x1");
    place.write("more/x2.txt", "x2");
    place.write("more/y.txt", "y");

    let made = place.json("data prepare in more/x*.txt more/x1.txt --output out");
    assert_eq!(
        (&made["documents"], &made["empty_documents"], &made["shards"]),
        (&json!(10), &json!(1), &json!(1))
    );
    assert_eq!(made["skipped_files"], json!(["in/notes.html"]));
    let expected =
        ["# heading", "gzipped", "one", "plain", "row 1", "row 2", "two", "x1", "x2", "zstd"];
    assert_eq!(texts(&place, "out"), expected);

    // Text output, and a second run: there is nothing left to do.
    let again = place.ssa("data prepare in more/x*.txt more/x1.txt --output out").succeeds();
    for text in [
        "10 documents",
        "1 shard already complete",
        "1 document without text",
        "1 file of unsupported kinds skipped, such as in/notes.html",
    ] {
        assert!(again.stdout.contains(text), "`{text}` is not in:\n{}", again.stdout);
    }
    // Every file is a document, regardless of its name.
    let made =
        place.json("data prepare in/a.txt in/notes.html in/deep --format text --output as-text");
    assert_eq!(made["documents"], 3);
    place.write("other.parquet", parquet("body", &["row"]));
    place.ssa("data prepare other.parquet --text-field body --output columns").succeeds();
    assert_eq!(texts(&place, "columns"), ["row"]);
}

#[test]
fn standard_input_is_read_in_the_given_format() {
    let place = Place::new();
    let input = "{\"body\": \"from\", \"n\": 1}\n{\"body\": \"a pipe\"}\n";
    let run = place.ssa_reading(
        input.as_bytes(),
        "data prepare - --format jsonl --text-field body --output lines",
    );
    run.succeeds();
    assert_eq!(texts(&place, "lines"), ["a pipe", "from"]);
    place.ssa_reading(input.as_bytes(), "data prepare - --format text --output whole").succeeds();
    assert_eq!(texts(&place, "whole"), [input]);
    let run = place.ssa_reading(b"", "data prepare - --output none");
    run.fails(2, &["`format` is auto, expected text or jsonl for standard input"]);
    assert!(!place.at("none").exists());
}

#[test]
fn conversations_become_text() {
    let place = Place::new();
    let turns =
        json!([{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Hello" }]);
    place.write("in.jsonl", json!({ "turns": turns, "text": "not this" }).to_string());
    place.ssa("data prepare in.jsonl --conversations-field turns --output out").succeeds();
    assert_eq!(texts(&place, "out"), ["user: Hi\n\nassistant: Hello\n\n"]);
    let run =
        place.ssa("data prepare in.jsonl --conversations-field turns --text-field text --output x");
    run.fails(2, &["--conversations-field", "cannot be used with", "--text-field"]);
}

#[test]
fn several_machines_share_the_work() {
    let place = Place::new();
    place.write("in.jsonl", (0..10).map(|number| line(&number.to_string())).collect::<String>());
    for part in ["1/3", "3/3"] {
        place.ssa(&format!("data prepare in.jsonl --output out --part {part}")).succeeds();
    }
    let missing =
        ["out/manifest-002-of-003.json: missing, although other parts", "prepare that part too"];
    place.ssa("data inspect out").fails(3, &missing);
    place.ssa("data prepare in.jsonl --output out --part 2/3").succeeds();
    let expected: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(texts(&place, "out"), expected);
    for wrong in ["0/3", "4/3", "1", "1/0", "a/b"] {
        let run = place.ssa(&format!("data prepare in.jsonl --output x --part {wrong}"));
        run.fails(2, &["--part", "expected i/n with i from 1 to n"]);
    }
}

#[test]
fn a_hub_that_cannot_be_reached_is_an_error() {
    let place = Place::new();
    let name = "hf://datasets/owner/name/data/*.parquet";
    let mut command = crate::common::command(place.path());
    command.env("HF_ENDPOINT", "http://127.0.0.1:1").env("HF_HOME", place.at("cache"));
    let output = command.args(["data", "prepare", name, "--output", "out"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let begins = format!("error: {name}: cannot be read from the Hugging Face Hub: ");
    assert!(
        stderr.starts_with(&begins) && stderr.contains("check the name and the network"),
        "{stderr}"
    );
    assert!(!place.at("out").exists());
}

#[test]
fn the_cache_of_the_hub_serves_offline() {
    let place = Place::new();
    let snapshot = "hf/hub/datasets--foo--bar/snapshots/0123456789abcdef0123456789abcdef01234567";
    place.write(&format!("{snapshot}/a.jsonl"), line("cached"));
    let name = "hf://datasets/foo/bar@0123456789abcdef0123456789abcdef01234567/a.jsonl";
    let mut command = crate::common::command(place.path());
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", place.at("hf"));
    let output = command.args(["data", "prepare", name, "--output", "out"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(texts(&place, "out"), ["cached"]);

    let mut command = crate::common::command(place.path());
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", place.at("hf"));
    let arguments = ["data", "prepare", "in.txt", "--tokenizer", "foo/bar", "--output", "x"];
    let output = command.args(arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("hf://foo/bar@main: cannot be read from the Hugging Face Hub: no token"),
        "{stderr}"
    );
}

/// Every verb reads the same file in the same way.
#[test]
fn json_lines_are_trained_and_measured_on_by_their_texts() {
    let place = Place::of(workplace());
    let text = "a text of some words ".repeat(15);
    place.write("held.jsonl", line(&text).repeat(9));
    place.ssa("train tiny.toml --no-eval --data held.jsonl --run-dir run").succeeds();
    let measured =
        place.json("eval perplexity --model run/checkpoint --budgets 8x2 --data held.jsonl");
    assert_eq!(measured["bytes"].as_f64(), Some((9 * text.len()) as f64));
}

#[test]
fn a_text_that_the_tokenizer_refuses_is_named() {
    let place = Place::of(workplace());
    place.ssa("data train-tokenizer text --vocab-size 300 --output tok").succeeds();
    place.write("data/a.txt", "fine");
    place.write("data/b.txt", [b"caf\xe9".as_slice(), &b" and words".repeat(200)].concat());
    let train = "train tiny.toml --data data --set data.tokenizer=tok --run-dir run";
    place.ssa(train).fails(3, &["data/b.txt: not UTF-8 at byte 3"]);
    let train = "data train-tokenizer data --vocab-size 300 --output other";
    place.ssa(train).fails(3, &["data/b.txt: not UTF-8 at byte 3"]);
}
