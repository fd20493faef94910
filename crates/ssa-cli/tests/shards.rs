//! `ssa train` from shards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{ssa, workplace};
use serde_json::Value;
use ssa_data::{
    DataError, Document, Manifest, ShardFiles, ShardSum, ShardWriter, TokenType, Tokenizer,
    TrainTokenizerOptions, read_documents, train_tokenizer,
};

/// Trains a tokenizer of at most 300 tokens on the text of the workspace, into `tokenizer/`.
fn make_tokenizer(directory: &Path) -> Tokenizer {
    let target = directory.join("tokenizer");
    let options = TrainTokenizerOptions { vocab_size: 300, min_frequency: 2 };
    let documents = documents(directory).into_iter().map(Ok::<_, DataError>);
    train_tokenizer(documents, &target, &options, |_| {}).unwrap();
    Tokenizer::load(&target, None).unwrap()
}

fn documents(directory: &Path) -> Vec<Document> {
    read_documents(&[directory.join("text")]).unwrap()
}

/// Writes the text of the workspace as a corpus of two shards, with its manifest and a copy of the
/// tokenizer.
fn make_corpus(directory: &Path, name: &str, tokenizer: &Tokenizer) {
    let target = directory.join(name);
    fs::create_dir(&target).unwrap();
    tokenizer.copy_to(&target).unwrap();
    let (documents, mut shards) = (documents(directory), Vec::new());
    for (name, documents) in
        ["00000", "00001"].iter().zip(documents.chunks(documents.len().div_ceil(2)))
    {
        let mut writer = ShardWriter::create(&target.join(name), TokenType::U16).unwrap();
        for document in documents {
            let mut ids = tokenizer.encode(&document.text).unwrap();
            ids.push(tokenizer.eos());
            writer.push(&ids).unwrap();
        }
        let (documents, tokens) = (writer.documents() as u64, writer.tokens());
        let ShardFiles { bin, idx, bytes } = writer.finish().unwrap();
        shards.push(ShardSum {
            name: (*name).to_owned(),
            documents,
            tokens,
            text_bytes: 0,
            bin,
            idx,
            bytes,
        });
    }
    Manifest::new(tokenizer, None, shards, vec![]).write(&target).unwrap();
}

/// Arguments that train on corpora; `paths` of the configuration is text and must be empty.
fn on(corpora: &str, more: &[&str]) -> Vec<String> {
    let corpora = format!("data.corpora=[{corpora}]");
    let fixed =
        ["train", "tiny.toml", "--set", "data.paths=[]", "--set", &corpora, "--run-dir", "out"];
    fixed.iter().chain(more).map(|&text| text.to_owned()).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The tokenizer next to the shards must not become training text.
#[test]
fn a_corpus_without_its_indices_is_not_text() {
    let directory = workplace();
    let tokenizer = make_tokenizer(directory.path());
    make_corpus(directory.path(), "web", &tokenizer);
    for index in ["00000.idx", "00001.idx"] {
        fs::remove_file(directory.path().join("web").join(index)).unwrap();
        let train = ["train", "tiny.toml", "--data", "web", "--dry-run"];
        ssa(directory.path(), train).fails(3, &["web", ".idx"]);
    }
}

#[test]
fn a_run_on_corpora_is_complete_and_can_be_evaluated() {
    let directory = workplace();
    let at = |path: &str| directory.path().join(path);
    let tokenizer = make_tokenizer(directory.path());
    make_corpus(directory.path(), "web", &tokenizer);
    make_corpus(directory.path(), "code", &tokenizer);

    let corpora = "{ path = \"web\", weight = 3 }, { path = \"code\", weight = 1 }";
    let run = ssa(directory.path(), on(corpora, &["--set", "data.packing=best-fit"])).succeeds();
    for text in [
        "web: 75.0 % of the batches",
        "code: 25.0 % of the batches",
        "best-fit",
        "% used",
        "held-out text: held-out part of web",
    ] {
        assert!(run.stderr.contains(text), "`{text}` is not in:\n{}", run.stderr);
    }
    let summary = json(&at("out/summary.json"));
    assert!(summary["baseline_bits_per_byte"].is_null());
    let evaluation = &summary["evaluation"];
    let (bytes, targets) =
        (evaluation["bytes"].as_f64().unwrap(), evaluation["targets"].as_f64().unwrap());
    assert!(bytes > 1.5 * targets, "a token is several bytes: {bytes} of {targets}");
    let bits = |result: &Value| result["bits_per_byte"].as_f64().unwrap();
    let expected =
        evaluation["results"][0]["nats_per_token"].as_f64().unwrap() * targets / bytes / 2_f64.ln();
    assert!((bits(&evaluation["results"][0]) / expected - 1.0).abs() < 1e-3);
    let last: Value = serde_json::from_str(
        fs::read_to_string(at("out/metrics.jsonl")).unwrap().lines().last().unwrap(),
    )
    .unwrap();
    assert_eq!(last["corpus_epochs"].as_array().unwrap().len(), 2);

    // The checkpoint includes its tokenizer, and the configuration of the run defines the held-out
    // data.
    let config = json(&at("out/checkpoint/config.json"));
    assert_eq!(config["vocab_size"], tokenizer.vocab_size());
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let original = fs::read(at("tokenizer").join(file)).unwrap();
        for model in ["out/checkpoint", "out/best"] {
            assert_eq!(fs::read(at(model).join(file)).unwrap(), original);
        }
    }
    let arguments =
        ["eval", "perplexity", "--model", "out/checkpoint", "--budgets", "8x1", "--json"];
    let eval: Value =
        serde_json::from_str(&ssa(directory.path(), arguments).succeeds().stdout).unwrap();
    assert!((bits(&eval["results"][0]) - bits(&evaluation["results"][0])).abs() < 1e-6);
    // Any text can be evaluated with the tokenizer of the checkpoint.
    ssa(directory.path(), arguments.iter().chain(&["--data", "text/00.txt"])).succeeds();
}

#[test]
fn the_same_corpora_give_the_same_run() {
    let directory = workplace();
    make_corpus(directory.path(), "bytes", &Tokenizer::Bytes);
    let weights = |packing: &str| {
        let packing = format!("data.packing={packing}");
        let more = ["--no-eval", "--overwrite", "--set", &packing];
        ssa(directory.path(), on("\"bytes\"", &more)).succeeds();
        fs::read(directory.path().join("out/checkpoint/model.safetensors")).unwrap()
    };
    let concat = weights("concat");
    assert!(concat == weights("concat"));
    assert!(concat != weights("greedy"));
}

#[test]
fn unusable_corpora_are_refused_before_anything_is_written() {
    let directory = workplace();
    let tokenizer = make_tokenizer(directory.path());
    let size = tokenizer.vocab_size().to_string();
    make_corpus(directory.path(), "own", &tokenizer);
    make_corpus(directory.path(), "bytes", &Tokenizer::Bytes);
    let check = |code: i32, corpora: &str, more: &[&str], parts: &[&str]| {
        ssa(directory.path(), on(corpora, more)).fails(code, parts);
        assert!(!directory.path().join("out").exists());
    };
    check(3, "\"absent\"", &["--set", "data.tokenizer=bytes"], &["absent"]);
    check(
        3,
        "\"bytes\", \"own\"",
        &[],
        &["own: made with another tokenizer", &size, "bytes (vocabulary of 257)"],
    );
    fs::remove_file(directory.path().join("bytes/manifest.json")).unwrap();
    check(3, "\"bytes\"", &[], &["bytes: the corpus has no tokenizer", "data.tokenizer"]);
    check(
        3,
        "\"own\"",
        &["--set", "data.tokenizer=bytes"],
        &["own: made with another tokenizer", &size, "257"],
    );
    check(3, "\"own\"", &["--set", "data.tokenizer=absent.json"], &["absent.json"]);
    check(
        2,
        "\"own\"",
        &["--set", "model.vocab_size=257"],
        &["model.vocab_size", &format!("at least {size}")],
    );
    check(2, "\"own\"", &["--set", "data.paths=[\"text\"]"], &["data.corpora", "data.paths"]);
    check(2, "{ path = \"own\", weight = -1 }", &[], &["data.corpora", "weight"]);

    // A byte model cannot continue with tokens of a larger vocabulary.
    let bytes = ["train", "tiny.toml", "--no-eval", "--run-dir", "start"];
    ssa(directory.path(), bytes).succeeds();
    let init_from = "model.init_from=start/checkpoint";
    check(
        2,
        "\"own\"",
        &["--set", init_from],
        &["start/checkpoint", "vocabulary of 257", &format!("one of {size}")],
    );

    // Tokens of another tokenizer, found when a row is read.
    for file in ["manifest.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::remove_file(directory.path().join("own").join(file)).unwrap();
    }
    let run = ssa(directory.path(), on("\"own\"", &["--set", "data.tokenizer=bytes"]));
    run.fails(3, &["own/0000", "vocabulary of 257"]);
}
