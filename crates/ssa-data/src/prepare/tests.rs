use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ssa_files::Sha256;
use ssa_text::{TrainTokenizerOptions, train_tokenizer};
use tempfile::TempDir;

use super::state::Preparation;
use super::*;
use crate::corpus::corpus_tokenizer;
use crate::input::Format;
use crate::shard::Corpus;
use crate::snapshot::snapshot;

/// Options with small shards, so that there are several.
pub(crate) fn options(output: &Path) -> PrepareOptions {
    PrepareOptions {
        input: InputOptions::default(),
        output: output.to_owned(),
        shard_tokens: 6,
        part: Part::WHOLE,
        threads: 2,
    }
}

/// Prepares texts, one per line, next to the output.
pub(crate) fn prepare_lines(texts: &[&str], options: &PrepareOptions) -> Result<Prepared> {
    let input = options.output.with_extension("jsonl");
    let lines: String =
        texts.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n").collect();
    fs::write(&input, lines).unwrap();
    prepare(&[input], &Tokenizer::Bytes, options, &mut |_| ())
}

fn run(inputs: &[&Path], options: &PrepareOptions) -> Result<Prepared> {
    let inputs: Vec<PathBuf> = inputs.iter().map(|path| path.to_path_buf()).collect();
    prepare(&inputs, &Tokenizer::Bytes, options, &mut |_| ())
}

/// The bytes of all files of a directory.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = directory.read_dir().unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn texts(corpus: &Corpus) -> Vec<String> {
    (0..corpus.documents())
        .map(|document| Tokenizer::Bytes.decode(&corpus.document(document).unwrap()).unwrap())
        .collect()
}

/// A few hundred documents of very different lengths, in several files.
fn many(folder: &TempDir) -> PathBuf {
    let directory = folder.path().join("in");
    fs::create_dir(&directory).unwrap();
    for file in 0..5 {
        let text =
            |line: usize| format!("{file} {line} {}", "word ".repeat((line * 7919 + file) % 300));
        let lines: String = (0..400)
            .map(|line| serde_json::json!({ "text": text(line) }).to_string() + "\n")
            .collect();
        fs::write(directory.join(format!("{file}.jsonl")), lines).unwrap();
    }
    directory
}

#[test]
fn documents_become_shards_and_a_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("a/out");
    fs::create_dir(folder.path().join("a")).unwrap();
    let prepared = prepare_lines(&["abc", "", "d", "efgh", "\u{e9}"], &options(&output)).unwrap();
    let names: Vec<_> = files(&output).into_keys().collect();
    let expected = [
        "00000.bin",
        "00000.bytes",
        "00000.idx",
        "00001.bin",
        "00001.bytes",
        "00001.idx",
        "manifest.json",
    ];
    assert_eq!(names, expected);

    let corpus = Corpus::open(&output).unwrap();
    assert_eq!(texts(&corpus), ["abc", "d", "efgh", "\u{e9}"]);
    assert_eq!(corpus.document(0).unwrap(), [97, 98, 99, 256]);
    let manifest = &prepared.manifest;
    assert_eq!(Manifest::read(&output).unwrap().as_ref(), Some(manifest));
    let shards: Vec<_> = manifest
        .shards
        .iter()
        .map(|shard| (shard.documents, shard.tokens, shard.text_bytes))
        .collect();
    assert_eq!(shards, [(2, 6, 4), (2, 8, 6)]);
    assert_eq!((manifest.documents(), manifest.tokens()), (4, 14));
    assert_eq!(manifest.text_bytes(), 10);
    let name = folder.path().join("a/out.jsonl").display().to_string();
    let bytes = fs::metadata(&name).ok().map(|metadata| metadata.len());
    let source = SourceSum {
        sha256: Some(Sha256::of(fs::read(&name).unwrap()).to_string()),
        name,
        bytes,
        documents: 4,
        empty_documents: 1,
        text_bytes: 10,
        tokens: 14,
    };
    assert_eq!(manifest.sources, [source]);
    assert_eq!(prepared.shards_before, 0);
    assert!(matches!(corpus_tokenizer(&output).unwrap(), Some(Tokenizer::Bytes)));
    crate::verify(&corpus, manifest).unwrap();
}

#[test]
fn the_files_do_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let input = many(&folder);
    let one =
        PrepareOptions { shard_tokens: 100_000, threads: 1, ..options(&folder.path().join("one")) };
    let seven = PrepareOptions { threads: 7, output: folder.path().join("seven"), ..one.clone() };
    let manifest = run(&[&input], &one).unwrap().manifest;
    assert_eq!((manifest.documents(), manifest.shards.len()), (2000, 16));
    run(&[&input], &seven).unwrap();
    assert!(files(&one.output) == files(&seven.output));
}

#[test]
fn an_interrupted_run_ends_like_a_straight_one() {
    let folder = tempfile::tempdir().unwrap();
    let input = many(&folder);
    let straight =
        PrepareOptions { shard_tokens: 100_000, ..options(&folder.path().join("straight")) };
    let broken = PrepareOptions { output: folder.path().join("broken"), ..straight.clone() };
    run(&[&input], &straight).unwrap();

    for stop_at in [0, 1, 4, 9] {
        let stop = |progress: &PrepareProgress| assert!(progress.shards < stop_at, "killed");
        let killed = catch_unwind(AssertUnwindSafe(|| {
            let mut stop = stop;
            prepare(std::slice::from_ref(&input), &Tokenizer::Bytes, &broken, &mut stop)
        }));
        let panic = killed.err().unwrap();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"killed"));
        // A killed process leaves this file behind.
        fs::write(broken.output.join(".ssa-partial-0123456789ab"), "x").unwrap();
        // This is a file of the user.
        fs::write(broken.output.join("00000.bin.partial"), "mine").unwrap();
        let error = Manifest::read(&broken.output).unwrap_err().to_string();
        assert!(
            error.contains(
                "preparation.json: the preparation of this corpus was interrupted\nhint: run"
            ),
            "{error}"
        );
    }
    let mut first = None;
    let resumed =
        prepare(std::slice::from_ref(&input), &Tokenizer::Bytes, &broken, &mut |progress| {
            first.get_or_insert(*progress);
        });
    let resumed = resumed.unwrap();
    assert!(resumed.shards_before >= 9 && resumed.shards_before < 16, "{}", resumed.shards_before);
    let first = first.unwrap();
    assert_eq!(first.shards, resumed.shards_before);
    assert!(
        first.resumed_bytes > 0
            && first.bytes == first.resumed_bytes
            && first.bytes < first.total_bytes
    );
    let mine = broken.output.join("00000.bin.partial");
    assert_eq!(fs::read(&mine).unwrap(), b"mine");
    fs::remove_file(mine).unwrap();
    assert!(files(&straight.output) == files(&broken.output));

    // A run that ends between its last two steps also leaves its state.
    fs::write(broken.output.join("preparation.json"), "").unwrap();
    let again = run(&[&input], &broken).unwrap();
    assert_eq!(again.shards_before, 16, "nothing is left to do");
    assert!(files(&straight.output) == files(&broken.output));
}

#[test]
fn a_bad_document_keeps_the_shards_before_it_and_can_be_corrected() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("1.jsonl"), "{\"text\":\"abcdef\"}\n{\"text\":\"x\"}\n").unwrap();
    fs::write(at("2.jsonl"), "{\"text\":\"y\"}\n{\"body\":\"abcdef\"}\n").unwrap();
    let options = options(&at("out"));
    let error = run(&[&at("*.jsonl")], &options).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}, line 2: no key `text`", at("2.jsonl").display())),
        "{error}"
    );
    let kept: Preparation =
        serde_json::from_slice(&fs::read(at("out/preparation.json")).unwrap()).unwrap();
    assert_eq!(
        (kept.manifest.shards.len(), kept.resume_at),
        (1, Position { source: 0, record: 1 })
    );

    fs::write(at("2.jsonl"), "{\"text\":\"y\"}\n{\"text\":\"long abcdef\"}\n").unwrap();
    let prepared = run(&[&at("*.jsonl")], &options).unwrap();
    assert_eq!(prepared.shards_before, 1);
    assert_eq!(texts(&Corpus::open(&at("out")).unwrap()), ["abcdef", "x", "y", "long abcdef"]);
    let straight = PrepareOptions { output: at("straight"), ..options };
    run(&[&at("*.jsonl")], &straight).unwrap();
    assert!(files(&straight.output) == files(&at("out")));
}

#[test]
fn parts_make_the_whole_together() {
    let folder = tempfile::tempdir().unwrap();
    let input = many(&folder);
    for (name, count) in [("by-file", 3), ("by-document", 7)] {
        let output = folder.path().join(name);
        for index in 1..=count {
            if index == count {
                let error = Manifest::read(&output).unwrap_err().to_string();
                assert!(
                    error.contains(&format!(
                        "manifest-{count:03}-of-{count:03}.json: missing, although"
                    )),
                    "{error}"
                );
            }
            let part = Part::new(index, count).unwrap();
            let options = PrepareOptions { shard_tokens: 50_000, part, ..options(&output) };
            let manifest = run(&[&input], &options).unwrap().manifest;
            assert_eq!(manifest.part(), part);
            assert!(manifest.documents() > 250, "{} documents", manifest.documents());
        }
        let corpus = Corpus::open(&output).unwrap();
        let manifest = Manifest::read(&output).unwrap().unwrap();
        assert_eq!((manifest.part(), manifest.documents()), (Part::WHOLE, 2000));
        crate::verify(&corpus, &manifest).unwrap();
        let mut prepared = texts(&corpus);
        let whole =
            PrepareOptions { shard_tokens: 1 << 30, ..options(&folder.path().join("whole")) };
        run(&[&input], &whole).unwrap();
        let mut expected = texts(&Corpus::open(&whole.output).unwrap());
        prepared.sort();
        expected.sort();
        assert!(prepared == expected);
    }
    let text = folder.path().join("one.txt");
    fs::write(&text, "one").unwrap();
    let nothing =
        PrepareOptions { part: Part::new(2, 2).unwrap(), ..options(&folder.path().join("few")) };
    assert_eq!(run(&[&text], &nothing).unwrap().manifest.documents(), 0, "a part may be empty");
}

#[test]
fn another_preparation_is_never_mixed_in() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.txt"), "abcdefgh").unwrap();
    fs::write(at("b.jsonl"), "{\"text\":\"a\"}\n{").unwrap();
    let options = options(&at("out"));
    let error = run(&[&at("a.txt"), &at("b.jsonl")], &options).unwrap_err().to_string();
    assert!(error.contains("b.jsonl, line 2: not valid JSON"), "{error}");
    let message =
        |inputs: &[&Path], options: &PrepareOptions| run(inputs, options).unwrap_err().to_string();
    let begun =
        format!("{}: this preparation was started with ", at("out/preparation.json").display());

    let error = message(&[&at("a.txt")], &options);
    assert!(error.starts_with(&format!("{begun}{}", at("b.jsonl").display())), "{error}");
    assert!(
        error.contains("not the end of the inputs\nhint: use the same settings to resume"),
        "{error}"
    );
    let other = PrepareOptions { shard_tokens: 7, ..options.clone() };
    let error = message(&[&at("a.txt"), &at("b.jsonl")], &other);
    assert!(
        error.starts_with(&begun)
            && error.contains("shard_tokens 6")
            && error.contains("shard_tokens 7")
    );
    fs::write(at("a.txt"), "changed").unwrap();
    let error = message(&[&at("a.txt"), &at("b.jsonl")], &options);
    assert!(
        error.contains("a.txt (8 bytes), not ") && error.contains("a.txt (7 bytes)"),
        "{error}"
    );

    let part = PrepareOptions { part: Part::new(1, 2).unwrap(), ..options.clone() };
    let error = message(&[&at("a.txt")], &part);
    assert!(
        error.starts_with(&format!("{}: already exists", at("out/preparation.json").display())),
        "{error}"
    );
    fs::remove_file(at("out/preparation.json")).unwrap();
    for options in [&options, &part] {
        let error = message(&[&at("a.txt")], options);
        assert!(
            error.starts_with(&format!("{}: already exists", at("out/00000.idx").display())),
            "{error}"
        );
    }
}

#[test]
fn a_changed_shard_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let input = folder.path().join("a.jsonl");
    fs::write(&input, "{\"text\":\"abcdefg\"}\n{").unwrap();
    let error = run(&[&input], &options(&output)).unwrap_err().to_string();
    assert!(error.contains("a.jsonl, line 2: not valid JSON"), "{error}");
    fs::write(output.join("00000.bin"), "short").unwrap();
    let error = run(&[&input], &options(&output)).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}: it has 5 bytes", output.join("00000.bin").display())),
        "{error}"
    );
}

#[test]
fn two_processes_do_not_write_one_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    fs::write(folder.path().join("a.txt"), "a").unwrap();
    let input = folder.path().join("a.txt");
    let mut refused = None;
    let first =
        prepare(std::slice::from_ref(&input), &Tokenizer::Bytes, &options(&output), &mut |_| {
            refused
                .get_or_insert_with(|| run(&[&input], &options(&output)).unwrap_err().to_string());
        });
    assert_eq!(first.unwrap().manifest.documents(), 1);
    assert!(refused.unwrap().contains("another `ssa data prepare` is writing to this directory"));
    assert_eq!(files(&output).len(), 4, "the lock file was removed");
}

#[test]
fn the_output_may_be_inside_the_input() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "a").unwrap();
    let options = options(&folder.path().join("out"));
    assert_eq!(run(&[folder.path()], &options).unwrap().shards_before, 0);
    fs::write(folder.path().join("out/notes.txt"), "n").unwrap();
    assert_eq!(run(&[folder.path()], &options).unwrap().shards_before, 1);
}

#[test]
fn settings_and_texts_out_of_range_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder.path().join("out"));
    let message = |texts: &[&str], options: &PrepareOptions| {
        prepare_lines(texts, options).unwrap_err().to_string()
    };
    assert!(message(&["", ""], &options).contains("the documents hold no text"));
    let later = prepare_lines(&["later"], &options).unwrap();
    assert_eq!(later.manifest.documents(), 1, "a failed run does not block the next");
    let zero = PrepareOptions { threads: 0, ..options.clone() };
    assert_eq!(message(&["a"], &zero), "`threads` is 0, expected at least 1");
    let zero = PrepareOptions { shard_tokens: 0, ..options.clone() };
    assert_eq!(message(&["a"], &zero), "`shard_tokens` is 0, expected at least 1");
    let part = PrepareOptions { part: Part { index: 3, count: 2 }, ..options.clone() };
    assert_eq!(message(&["a"], &part), "`part` is 3/2, expected i/n with i from 1 to n");
    let input = InputOptions { max_document_bytes: 1 << 31, ..InputOptions::default() };
    assert!(
        message(&["a"], &PrepareOptions { input, ..options })
            .starts_with("`max_document_bytes` is 2147483648")
    );
}

#[test]
fn a_tokenizer_goes_with_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let train = TrainTokenizerOptions { vocab_size: 500, min_frequency: 2 };
    train_tokenizer(
        snapshot().unwrap().into_iter().take(10).map(Ok::<_, DataError>),
        &at("tokenizer"),
        &train,
        |_| (),
    )
    .unwrap();
    let tokenizer = Tokenizer::load(&at("tokenizer"), Some("!")).unwrap();
    fs::write(at("a.txt"), "some words of text").unwrap();
    fs::write(at("bad.txt"), b"caf\xe9").unwrap();
    let options = PrepareOptions { shard_tokens: 1, ..options(&at("out")) };
    let error = prepare(&[at("a.txt"), at("bad.txt")], &tokenizer, &options, &mut |_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!(
            "{}: not UTF-8 at byte 3\nhint: convert",
            at("bad.txt").display()
        )),
        "{error}"
    );
    fs::write(at("bad.txt"), "caf\u{e9}").unwrap();
    prepare(&[at("a.txt"), at("bad.txt")], &tokenizer, &options, &mut |_| ()).unwrap();

    let corpus = Corpus::open(&at("out")).unwrap();
    let kept = corpus_tokenizer(&at("out")).unwrap().unwrap();
    assert_eq!((kept.sha256(), kept.eos()), (tokenizer.sha256(), tokenizer.eos()));
    assert_eq!(kept.decode(&corpus.document(0).unwrap()).unwrap(), "some words of text!");
    let text = fs::read_to_string(at("out/tokenizer.json")).unwrap();
    fs::write(at("out/tokenizer.json"), text + " ").unwrap();
    let error = corpus_tokenizer(&at("out")).unwrap_err().to_string();
    assert!(
        error.contains("manifest.json: the corpus was made with a tokenizer of 500 tokens"),
        "{error}"
    );
}

#[test]
fn a_manifest_of_parts_that_do_not_belong_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.txt"), "a").unwrap();
    for (output, count) in [("two", 2), ("three", 3)] {
        for index in 1..=count {
            let part = Part::new(index, count).unwrap();
            run(&[&at("a.txt")], &PrepareOptions { part, ..options(&at(output)) }).unwrap();
        }
    }
    fs::copy(at("three/manifest-003-of-003.json"), at("two/manifest-003-of-003.json")).unwrap();
    let error = Manifest::read(&at("two")).unwrap_err().to_string();
    assert!(
        error
            .contains("manifest-003-of-003.json: it is not a part of the same corpus as the first"),
        "{error}"
    );
}

#[test]
fn a_long_line_and_the_standard_formats_pass_through() {
    let folder = tempfile::tempdir().unwrap();
    let text = "x".repeat(3 << 20);
    let options = options(&folder.path().join("out"));
    prepare_lines(&["a", &text, "b"], &options).unwrap();
    assert!(texts(&Corpus::open(&options.output).unwrap()) == ["a", &text, "b"]);
    let input = InputOptions { format: Format::Text, ..InputOptions::default() };
    let options = PrepareOptions { input, output: folder.path().join("text"), ..options };
    let line = folder.path().join("out.jsonl");
    run(&[&line], &options).unwrap();
    assert_eq!(Corpus::open(&options.output).unwrap().documents(), 1);
}

#[test]
fn changed_content_of_the_same_size_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Finished.
    fs::write(at("a.jsonl"), "{\"text\":\"aaa\"}").unwrap();
    let finished = options(&at("out"));
    run(&[&at("a.jsonl")], &finished).unwrap();
    assert_eq!(run(&[&at("a.jsonl")], &finished).unwrap().shards_before, 1);
    fs::write(at("a.jsonl"), "{\"text\":\"bbb\"}").unwrap();
    let error = run(&[&at("a.jsonl")], &finished).unwrap_err();
    assert!(error.is_usage());
    assert!(error.to_string().contains("a.jsonl has changed since it was prepared"), "{error}");

    // Interrupted within a file, and after one.
    let lines = |word: &str| format!("{{\"text\":\"{word}\"}}\n").repeat(5);
    fs::write(at("1.jsonl"), lines("first")).unwrap();
    fs::write(at("2.jsonl"), lines("second") + "{").unwrap();
    let broken = options(&at("broken"));
    let inputs = [&*at("1.jsonl"), &*at("2.jsonl")];
    let error = run(&inputs, &broken).unwrap_err().to_string();
    assert!(error.contains("2.jsonl, line 6: not valid JSON"), "{error}");
    fs::write(at("2.jsonl"), lines("sECOND") + "{").unwrap();
    let error = run(&inputs, &broken).unwrap_err().to_string();
    assert!(
        error.contains("2.jsonl: it has changed since documents of it were written"),
        "{error}"
    );
    fs::write(at("2.jsonl"), lines("second") + "{").unwrap();
    fs::write(at("1.jsonl"), lines("FIRST")).unwrap();
    let error = run(&inputs, &broken).unwrap_err().to_string();
    assert!(error.contains("1.jsonl has changed since it was prepared"), "{error}");
    fs::write(at("1.jsonl"), lines("first")).unwrap();
    let error = run(&inputs, &broken).unwrap_err().to_string();
    assert!(error.contains("2.jsonl, line 6: not valid JSON"), "{error}");
}

#[test]
fn a_state_that_was_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.jsonl"), "{\"text\":\"abcdefgh\"}\n{\"text\":\"abcdefgh\"}\n{").unwrap();
    let options = options(&at("out"));
    run(&[&at("a.jsonl")], &options).unwrap_err();
    let state = at("out/preparation.json");
    let original = fs::read_to_string(&state).unwrap();
    for (before, after) in [("\"record\": 2", "\"record\": 9"), ("\"source\": 0", "\"source\": 2")]
    {
        assert!(original.contains(before), "{original}");
        fs::write(&state, original.replace(before, after)).unwrap();
        let error = run(&[&at("a.jsonl")], &options).unwrap_err().to_string();
        let expected = format!("{}: wrong checksum", state.display());
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn only_a_new_or_empty_directory_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.txt"), "a").unwrap();
    fs::create_dir(at("out")).unwrap();
    fs::write(at("out/00000.bin.partial"), "mine").unwrap();
    let error = run(&[&at("a.txt")], &options(&at("out"))).unwrap_err();
    assert!(error.is_usage());
    let error = error.to_string();
    assert!(
        error.contains("out: the directory holds other files, such as 00000.bin.partial"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(at("out/00000.bin.partial")).unwrap(), "mine");
    fs::remove_file(at("out/00000.bin.partial")).unwrap();
    assert_eq!(run(&[&at("a.txt")], &options(&at("out"))).unwrap().manifest.documents(), 1);
}

#[test]
fn a_different_tokenizer_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.txt"), "a").unwrap();
    fs::create_dir(at("t")).unwrap();
    let definition = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel",
        "vocab": {"</s>": 0, "a": 1}, "unk_token": "</s>"}}"#;
    fs::write(at("t/tokenizer.json"), definition).unwrap();
    run(&[&at("a.txt")], &options(&at("out"))).unwrap();
    let tokenizer = Tokenizer::load(&at("t"), None).unwrap();
    let error = prepare(&[at("a.txt")], &tokenizer, &options(&at("out")), &mut |_| ());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains(
            "was started with the tokenizer `bytes`, not a tokenizer.json of 2 tokens (SHA-256 "
        ),
        "{error}"
    );
    assert!(error.contains("..) with `</s>` at the end of documents"), "{error}");
}

#[test]
fn a_document_has_one_end_and_its_bytes_are_those_of_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("t")).unwrap();
    let definition = r#"{"version": "1.0", "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Whitespace"},
        "added_tokens": [{"id": 0, "content": "</s>", "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false}],
        "model": {"type": "WordLevel", "vocab": {"</s>": 0, "a": 1, "1": 2},
            "unk_token": "</s>"}}"#;
    fs::write(at("t/tokenizer.json"), definition).unwrap();
    let template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";
    let config = serde_json::json!({ "eos_token": "</s>", "chat_template": template });
    fs::write(at("t/tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::load(&at("t"), None).unwrap();
    fs::write(at("c.jsonl"), r#"{"m": [{"content": "a"}, {"content": "\u2460"}]}"#).unwrap();
    let input =
        InputOptions { conversations_field: Some("m".to_owned()), ..InputOptions::default() };
    let options = PrepareOptions { input, ..options(&at("out")) };
    let manifest = prepare(&[at("c.jsonl")], &tokenizer, &options, &mut |_| ()).unwrap().manifest;
    let corpus = Corpus::open(&at("out")).unwrap();
    assert_eq!(corpus.document(0).unwrap(), [1, 0, 2, 0]);
    // The circled digit has three bytes and is normalized to one.
    assert_eq!((manifest.text_bytes(), corpus.text_bytes(0)), (12, Some(12)));
    let source = crate::token_source::TokenSource::shards(corpus, 3, 0);
    assert_eq!(source.bytes_per_target(&[0], &tokenizer, 99).unwrap(), 4.0);
}
