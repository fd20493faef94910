//! Invalid text and corrupt shards: errors name the file, and nothing is lost.

use std::fs;

use serde_json::Value;

use crate::common::workplace;
use crate::place::{Place, gzip, line, lines, parquet, zstd};

/// A corpus of byte tokens in `corpus`, with several shards of equal size.
fn with_corpus() -> Place {
    let place = Place::of(workplace());
    place.write(
        "in.jsonl",
        (0..12).map(|n| line(&format!("{n:02} and nothing more"))).collect::<String>(),
    );
    place.ssa("data prepare in.jsonl --shard-tokens 60 --output corpus").succeeds();
    assert_eq!(place.files("corpus").len(), 13);
    place
}

#[test]
fn shards_that_contradict_the_manifest_are_named() {
    type Damage = fn(&Place);
    let swap: Damage = |place| {
        for extension in ["bin", "idx"] {
            let [a, b] = [0, 1].map(|shard| place.at(&format!("corpus/0000{shard}.{extension}")));
            let (bytes_of_a, bytes_of_b) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
            fs::write(a, bytes_of_b).unwrap();
            fs::write(b, bytes_of_a).unwrap();
        }
    };
    let cut: Damage = |place| {
        let bytes = fs::read(place.at("corpus/00002.bin")).unwrap();
        fs::write(place.at("corpus/00002.bin"), &bytes[..bytes.len() / 2]).unwrap();
    };
    let flip: Damage = |place| {
        let mut bytes = fs::read(place.at("corpus/00002.bin")).unwrap();
        bytes[10] ^= 1;
        fs::write(place.at("corpus/00002.bin"), bytes).unwrap();
    };
    let cut_index: Damage =
        |place| fs::write(place.at("corpus/00001.idx"), b"MMIDIDX\0\0").unwrap();
    let lose: Damage = |place| fs::remove_file(place.at("corpus/00001.bin")).unwrap();
    let other: Damage =
        |place| edit_manifest(place, |manifest| manifest["shards"][1]["bin"]["bytes"] = 7.into());
    let no_json: Damage = |place| place.write("corpus/manifest.json", "{\"version\": 1");
    let vocabulary: Damage =
        |place| edit_manifest(place, |manifest| manifest["tokenizer"]["vocab_size"] = 99.into());
    let cases: [(Damage, &str, bool); 8] = [
        (cut, "corpus/00002.bin: it has ", true),
        (cut_index, "corpus/00001.idx: it ", true),
        (lose, "corpus/00001.bin: no such file", true),
        (other, "corpus/00001.bin: it has ", true),
        (no_json, "corpus/manifest.json: not a manifest of a corpus", true),
        (
            vocabulary,
            "corpus/manifest.json: the corpus was made with a tokenizer of 99 tokens",
            true,
        ),
        // Only reading every byte detects these two.
        (swap, "corpus/00000.bin: its checksum is not the one in manifest.json", false),
        (flip, "corpus/00002.bin: its checksum is not the one in manifest.json", false),
    ];
    for (damage, message, at_once) in cases {
        let place = with_corpus();
        damage(&place);
        let before = place.files("corpus");
        let inspected = place.ssa("data inspect corpus");
        if message.contains("of 99 tokens") {
            // The tokens are then the first contradiction.
            inspected.fails(
                3,
                &["corpus/00000.bin: document 0 has token 256, but the vocabulary size is 99"],
            );
        } else {
            inspected.fails(3, &[message]);
        }
        let verify = if at_once { "" } else { "--set data.verify_checksums=true" };
        let train = format!(
            "train tiny.toml --data corpus --set data.sequence_length=16 --run-dir run {verify}"
        );
        place.ssa(&train).fails(3, &[message]);
        assert!(!place.at("run").exists());
        assert!(place.files("corpus") == before, "nothing is changed");
    }
}

fn edit_manifest(place: &Place, edit: impl FnOnce(&mut Value)) {
    let path = place.at("corpus/manifest.json");
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    fs::write(path, manifest.to_string()).unwrap();
}

#[test]
fn invalid_text_is_named_and_earlier_shards_are_kept() {
    let place = Place::new();
    place.write("good.jsonl", lines(300));
    place.ssa("data train-tokenizer good.jsonl --vocab-size 300 --output tokenizer").succeeds();
    let cut = |whole: Vec<u8>| whole[..whole.len() / 2].to_vec();
    let fine = line("fine");
    let cases: [(&str, Vec<u8>, Vec<u8>, &str); 7] = [
        (
            "a.txt",
            b"caf\xe9".to_vec(),
            b"cafe".to_vec(),
            "bad/a.txt: not UTF-8 at byte 3\nhint: convert the text",
        ),
        (
            "b.jsonl",
            b"\n{\"text\": \"caf\xe9\"}\n".to_vec(),
            fine.clone().into(),
            "bad/b.jsonl, line 2: ",
        ),
        (
            "c.jsonl",
            b"{\"body\": 1}".to_vec(),
            fine.clone().into(),
            "bad/c.jsonl, line 1: no key `text`, only `body`",
        ),
        (
            "d.jsonl.gz",
            cut(gzip(&lines(9))),
            gzip(&fine),
            "bad/d.jsonl.gz: the compressed file is truncated",
        ),
        (
            "e.jsonl.zst",
            cut(zstd(&lines(9))),
            zstd(&fine),
            "bad/e.jsonl.zst: the compressed file is truncated",
        ),
        (
            "f.parquet",
            parquet("body", &["x"]),
            parquet("text", &["x"]),
            "bad/f.parquet: no column `text`, only `body`",
        ),
        (
            "g.parquet",
            cut(parquet("text", &["x"])),
            parquet("text", &["x"]),
            "bad/g.parquet: Parquet error",
        ),
    ];
    for (name, bad, corrected, message) in cases {
        place.write(&format!("bad/{name}"), bad);
        let prepare = format!(
            "data prepare good.jsonl bad/{name} --tokenizer tokenizer --shard-tokens 5000 \
             --output out"
        );
        place.ssa(&prepare).fails(3, &[message]);
        let kept = place.files("out");
        let shards = kept.keys().filter(|name| name.ends_with(".bin")).count();
        assert!(
            shards >= 3
                && kept.contains_key("preparation.json")
                && !kept.contains_key("manifest.json")
        );
        place
            .ssa("data inspect out")
            .fails(3, &["out/preparation.json", "run the same `ssa data prepare` again"]);
        place
            .ssa("data prepare good.jsonl --output out")
            .fails(2, &["out/preparation.json: this preparation was started with"]);

        // After the correction, the run resumes.
        place.write(&format!("bad/{name}"), corrected);
        let made = place.json(&prepare);
        assert_eq!(made["resumed_shards"], shards);
        fs::remove_dir_all(place.at("out")).unwrap();
    }
}

#[test]
fn nothing_to_read_is_an_error_and_leaves_nothing() {
    let place = Place::new();
    place.write("empty.txt", "");
    place.write("blank.jsonl", "\n\n{\"text\": \"\"}\n{\"text\": null}\n");
    place.write("folder/x.html", "<p>");
    for (input, message) in [
        ("empty.txt", "empty.txt: the file is empty"),
        ("absent.jsonl", "absent.jsonl: no such file or directory"),
        ("folder", "folder: nothing to read: hidden entries"),
        ("*.parquet", "*.parquet: no file matches"),
    ] {
        place.ssa(&format!("data prepare {input} --output out")).fails(3, &[message]);
        assert!(!place.at("out").exists());
        place
            .ssa(&format!("data train-tokenizer {input} --vocab-size 300 --output out"))
            .fails(3, &[message]);
        assert!(!place.at("out").exists());
    }
    place.ssa("data prepare blank.jsonl --output out").fails(3, &["hold no text"]);
    place
        .ssa("data prepare blank.jsonl --tokenizer absent.json --output out")
        .fails(3, &["absent.json: no such file"]);
}

#[test]
fn a_line_of_a_hundred_megabytes_is_a_document() {
    let place = Place::new();
    let text = "word ".repeat(20_000_000);
    place.write("in.jsonl", line("before") + &line(&text) + &line("after"));
    let made = place.json("data prepare in.jsonl --output out");
    assert_eq!(
        (made["documents"].as_u64(), made["text_bytes"].as_u64()),
        (Some(3), Some(100_000_011))
    );
    let run = place.ssa("data prepare in.jsonl --max-document-bytes 1000000 --output small");
    run.fails(3, &["in.jsonl: a document", "is larger than 1000000 bytes", "--max-document-bytes"]);
}

#[test]
fn a_corpus_of_another_vocabulary_is_refused() {
    let place = with_corpus();
    place.ssa("data train-tokenizer text --vocab-size 270 --output tokenizer").succeeds();
    place.ssa("data prepare text --tokenizer tokenizer --output tokens").succeeds();
    let mixed = place.ssa("train tiny.toml --no-eval --data corpus tokens --run-dir run");
    mixed.fails(
        3,
        &["tokens: made with another tokenizer (vocabulary of 270)", "corpus (vocabulary of 257)"],
    );
    place.ssa("train tiny.toml --no-eval --data tokens --run-dir run").succeeds();
    let measured = place.ssa("eval perplexity --model run/checkpoint --data corpus");
    measured.fails(3, &["corpus: made with another tokenizer (vocabulary of 257)"]);
    // Tokens outside the vocabulary of the named tokenizer.
    for file in ["manifest.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::remove_file(place.at("tokens").join(file)).unwrap();
    }
    let wrong = place
        .ssa("train tiny.toml --no-eval --data tokens --set data.tokenizer=bytes --run-dir other");
    wrong.fails(3, &["tokens/00000.bin", "vocabulary of 257"]);
}
