//! From text to a trained model: tokenizer, corpus, inspection, training, evaluation.

use std::fs;

use serde_json::{Value, json};

use crate::common::workplace;
use crate::place::{Place, lines, row_texts};

const EOS: &str = "<|endoftext|>";

#[test]
fn a_tokenizer_is_trained_and_its_corpus_trained_on() {
    let place = Place::of(workplace());
    place.write("more.jsonl", lines(60));
    let trained = place
        .ssa("data train-tokenizer text more.jsonl --vocab-size 320 --output tokenizer")
        .succeeds();
    assert!(trained.stdout.contains("320 tokens in tokenizer"), "{}", trained.stdout);
    // Nothing is overwritten.
    let again = place.ssa("data train-tokenizer text --vocab-size 300 --output tokenizer");
    again.fails(2, &["tokenizer/tokenizer.json: already exists"]);

    let made = place.json(
        "data prepare text more.jsonl --tokenizer tokenizer --shard-tokens 4000 --output corpus",
    );
    let (documents, tokens) =
        (made["documents"].as_u64().unwrap(), made["tokens"].as_u64().unwrap());
    assert_eq!(documents, 72);
    assert!(made["shards"].as_u64().unwrap() >= 3);
    assert!(tokens < made["text_bytes"].as_u64().unwrap() / 2);

    let inspected = place.json("data inspect corpus --rows 1000000 --sequence-length 64");
    check_inspection(&inspected, documents, tokens);
    let shown = place.ssa("data inspect corpus --rows 1 --sequence-length 64").succeeds().stdout;
    for text in [
        "all files match the manifest",
        "72 documents",
        "quartiles",
        "most frequent",
        "row 0",
        "row utilization (concat): ",
    ] {
        assert!(shown.contains(text), "`{text}` is not in:\n{shown}");
    }
    let quick = place.json("data inspect corpus --quick --rows 0");
    assert_eq!((&quick["check"], &quick["statistics"]), (&json!("sizes"), &Value::Null));

    let run = place
        .ssa("train tiny.toml --data corpus --run-dir run --set data.packing=best-fit")
        .succeeds();
    for text in ["corpus: ", "rows of 64 (best-fit", "% used)"] {
        assert!(run.stderr.contains(text), "`{text}` is not in:\n{}", run.stderr);
    }
    let config: Value =
        serde_json::from_slice(&fs::read(place.at("run/checkpoint/config.json")).unwrap()).unwrap();
    assert_eq!(config["vocab_size"], 320);

    // The same text, as a corpus or as files.
    place.ssa("data prepare text --tokenizer tokenizer --output valid").succeeds();
    let bits = |data: &str| {
        let measured = place
            .json(&format!("eval perplexity --model run/checkpoint --budgets 8x2 --data {data}"));
        measured["results"][0]["bits_per_byte"].as_f64().unwrap()
    };
    let (text, corpus) = (bits("text"), bits("valid"));
    // Rows cut the documents in a different order.
    assert!((text / corpus - 1.0).abs() < 0.02, "{text} {corpus}");
    let both = place.ssa("eval perplexity --model run/checkpoint --data text valid");
    both.fails(2, &["--data names both text and corpora"]);
}

/// Checks that exactly the ends of documents have the end-of-document token, not rows or cuts.
fn check_inspection(inspected: &Value, documents: u64, tokens: u64) {
    assert_eq!(inspected["check"], "checksums");
    assert_eq!(
        (inspected["documents"].as_u64(), inspected["tokens"].as_u64()),
        (Some(documents), Some(tokens))
    );
    let frequent = inspected["statistics"]["most_frequent"].as_array().unwrap();
    assert_eq!(frequent.len(), 10);
    let rows = row_texts(inspected);
    let pieces: Vec<&String> = rows.iter().flatten().collect();
    let ended = pieces.iter().filter(|text| text.ends_with(EOS)).count() as u64;
    assert_eq!(ended, documents);
    assert!(pieces.len() as u64 > documents, "rows cut documents");
    let inner = pieces.iter().filter(|text| text.trim_end_matches(EOS).contains(EOS)).count();
    assert_eq!(inner, 0, "a piece is of one document");
}

#[test]
fn a_corpus_of_another_program_is_shown_and_trained_on() {
    let place = Place::of(workplace());
    place.ssa("data train-tokenizer text --vocab-size 280 --output tokenizer").succeeds();
    place.ssa("data prepare text --tokenizer tokenizer --output corpus").succeeds();
    // The remaining files are those of Megatron's own tools.
    fs::create_dir(place.at("megatron")).unwrap();
    for (from, to) in [("00000.bin", "my_text_document.bin"), ("00000.idx", "my_text_document.idx")]
    {
        fs::copy(place.at("corpus").join(from), place.at("megatron").join(to)).unwrap();
    }
    let shown = place.json("data inspect megatron/my_text_document --rows 1");
    assert_eq!(shown["check"], "no_manifest");
    assert!(shown["rows"][0][0]["text"].is_null() && shown["rows"][0][0]["ids"][0].is_u64());
    let shown = place.json("data inspect megatron --tokenizer tokenizer --rows 1");
    assert!(row_texts(&shown)[0][0].contains("the quick brown fox"));

    let train = "train tiny.toml --no-eval --data megatron/my_text_document";
    place
        .ssa(&format!("{train} --run-dir none"))
        .fails(3, &["the corpus has no tokenizer", "data.tokenizer"]);
    place.ssa(&format!("{train} --run-dir run --set data.tokenizer=tokenizer")).succeeds();
}
