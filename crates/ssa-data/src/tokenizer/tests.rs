use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{Document, snapshot};

/// A tokenizer trained on this project's own text.
fn trained(folder: &TempDir) -> PathBuf {
    let documents = snapshot().unwrap().into_iter().take(20).map(Ok);
    let options = TrainTokenizerOptions { vocab_size: 600, min_frequency: 2 };
    assert_eq!(train_tokenizer(documents, folder.path(), &options, |_| ()).unwrap(), 600);
    folder.path().to_owned()
}

fn edit(path: &PathBuf, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// The ids of the whole text at once.
pub(super) fn uncut(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let Tokenizer::Hf(tokenizer) = tokenizer else { panic!("a tokenizer.json") };
    let mut ids = Vec::new();
    tokenizer.append(text, &mut ids).unwrap();
    ids
}

/// Steps before BPE as published tokenizers have them, for which cutting is allowed.
fn pre_tokenizers() -> Vec<Value> {
    let split = |pattern: &str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let gpt2 = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let digits = json!({ "type": "Digits", "individual_digits": true });
    let sequence = |steps: &[&Value]| json!({ "type": "Sequence", "pretokenizers": steps });
    let mut all = vec![gpt2.clone(), sequence(&[&digits, &gpt2])];
    let patterns = pieces::PATTERNS;
    for pattern in patterns.iter().filter(|pattern| pattern.contains(r"\s+")) {
        all.push(sequence(&[&split(pattern), &bytes]));
    }
    // Two other ways of writing the same.
    all.push(sequence(&[&split(&patterns[2].replace(r"\r", "\r").replace(r"\n", "\n")), &bytes]));
    let mut words = split(patterns[4]);
    words["behavior"] = json!("Removed");
    words["invert"] = json!(true);
    all.push(sequence(&[&words, &bytes]));
    all.push(sequence(&[&split(patterns[5]), &split(patterns[6]), &split(patterns[7]), &bytes]));
    all
}

#[test]
fn pieces_have_the_tokens_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder).join("tokenizer.json");
    let alphabet = [
        "a",
        "B",
        "the",
        "'s",
        "'",
        " ",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "7",
        "123",
        ".",
        ",",
        "!?",
        "/",
        "\u{e9}",
        "e\u{301}",
        " \u{308}",
        "\u{4e2d}",
        "\u{a0}",
        "\u{3000}",
        "\u{2028}",
        "<|endoftext|>",
        "\u{1f600}",
        "_",
        "\u{0}",
    ];
    let texts = prop::collection::vec(prop::sample::select(alphabet.to_vec()), 0..40);
    let none = json!({ "type": "Sequence", "normalizers": [] });
    for pre_tokenizer in pre_tokenizers() {
        for normalizer in
            [Value::Null, json!({ "type": "NFC" }), json!({ "type": "NFKD" }), none.clone()]
        {
            edit(&path, |definition| {
                definition["pre_tokenizer"] = pre_tokenizer.clone();
                definition["normalizer"] = normalizer.clone();
            });
            let tokenizer = Tokenizer::load(&path, None).unwrap();
            let Tokenizer::Hf(hf) = &tokenizer else { panic!("a tokenizer.json") };
            assert!(matches!(hf.cuts(), pieces::Cuts::Words), "{pre_tokenizer}");
            let mut runner = proptest::test_runner::TestRunner::deterministic();
            runner
                .run(&texts, |text| {
                    let text = text.concat();
                    let mut encoder = tokenizer.encoder();
                    let mut ids = Vec::new();
                    encoder.append(text.as_bytes(), &mut ids).unwrap();
                    prop_assert_eq!(&ids, &uncut(&tokenizer, &text), "{:?}", text);
                    // Now from memory.
                    let mut again = Vec::new();
                    encoder.append(text.as_bytes(), &mut again).unwrap();
                    prop_assert_eq!(ids, again);
                    Ok(())
                })
                .unwrap();
        }
    }
}

#[test]
fn tokenizers_that_join_words_are_not_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder).join("tokenizer.json");
    let original: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let changes: [fn(&mut Value); 7] = [
        |definition| definition["pre_tokenizer"] = Value::Null,
        |definition| definition["pre_tokenizer"]["pretokenizers"][0]["behavior"] = json!("Removed"),
        |definition| {
            definition["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("a b")
        },
        |definition| {
            definition["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = json!(true)
        },
        |definition| definition["normalizer"] = json!({ "type": "Prepend", "prepend": "x" }),
        |definition| definition["added_tokens"][0]["lstrip"] = json!(true),
        |definition| definition["model"]["dropout"] = json!(0.1),
    ];
    for change in changes {
        fs::write(&path, original.to_string()).unwrap();
        edit(&path, change);
        let tokenizer = Tokenizer::load(&path, None).unwrap();
        let Tokenizer::Hf(hf) = &tokenizer else { panic!("a tokenizer.json") };
        assert!(matches!(hf.cuts(), pieces::Cuts::Unknown));
    }
}

#[test]
fn text_without_a_place_to_cut_is_encoded_in_bounded_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::load(&trained(&folder), None).unwrap();
    let text = "\u{e9}".repeat(pieces::MAX_PIECE_BYTES);
    let ids = tokenizer.encode(text.as_bytes()).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    let limit = pieces::MAX_PIECE_BYTES;
    assert_eq!(pieces::piece_at_space(&text), limit);
    assert_eq!(pieces::piece_of_any(&format!("x{text}")), limit - 1);
    assert_eq!(pieces::piece_of_any(&format!("x y\nz {text}")), 4);
    assert_eq!(pieces::piece_of_any(&format!("x y {text}")), 3);
    assert_eq!(pieces::piece_of_any("x y\nz"), 5);
}

#[test]
fn training_is_deterministic_and_round_trips() {
    let [first, second] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = [trained(&first), trained(&second)]
        .map(|path| fs::read(path.join("tokenizer.json")).unwrap());
    assert!(first == second);

    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::load(&trained(&folder), None).unwrap();
    assert_eq!(tokenizer.vocab_size(), 600);
    assert_eq!(tokenizer.decode(&[tokenizer.eos()]).unwrap(), "<|endoftext|>");
    let text = "fn main() {\n\tprintln!(\"\u{1f600}  42\");\r\n}\u{0}";
    let ids = tokenizer.encode(text.as_bytes()).unwrap();
    assert!(ids.len() < text.len());
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    let error = tokenizer.decode(&[600]).unwrap_err().to_string();
    assert!(error.starts_with("token 600 does not exist in a vocabulary of 600"), "{error}");
    let error = tokenizer.encode(b"caf\xe9").unwrap_err().to_string();
    assert!(error.starts_with("not UTF-8 at byte 3; convert the text"), "{error}");
}

#[test]
fn training_faults_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let options = TrainTokenizerOptions { vocab_size: 300, min_frequency: 0 };
    let document = |text: &[u8]| Ok(Document { name: "x.txt".to_owned(), text: text.to_vec() });
    let train = |documents: Vec<Result<Document>>, options| {
        train_tokenizer(documents.into_iter(), folder.path(), &options, |_| ())
            .unwrap_err()
            .to_string()
    };
    let error = train(vec![], TrainTokenizerOptions { vocab_size: 256, ..options });
    assert_eq!(error, "`vocab_size` is 256, expected at least 257");
    assert!(train(vec![], options).contains("no text at all"));
    assert!(train(vec![document(b"")], options).contains("no text at all"));
    assert!(
        train(vec![document(b"a"), document(b"\xff")], options).starts_with("x.txt: not UTF-8")
    );
    assert!(
        train(vec![document(b"a"), Err(DataError::NoPaths)], options)
            .starts_with("no path was given")
    );
    fs::write(folder.path().join("tokenizer_config.json"), "{}").unwrap();
    assert!(train(vec![document(b"a")], options).contains("tokenizer_config.json: exists already"));
    assert!(!folder.path().join("tokenizer.json").exists());
}

#[test]
fn the_end_of_document_is_found_or_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder);
    let config = path.join("tokenizer_config.json");
    let eos = |eos_token| Tokenizer::load(&path, eos_token).map(|tokenizer| tokenizer.eos());
    assert_eq!(eos(None).unwrap(), 0);
    assert_eq!(eos(Some("!")).unwrap(), 1);
    fs::write(&config, r#"{"eos_token": {"content": "\"", "lstrip": false}}"#).unwrap();
    assert_eq!(eos(None).unwrap(), 2);
    fs::write(&config, r#"{"eos_token": "<|im_end|>"}"#).unwrap();
    let error = eos(None).unwrap_err().to_string();
    assert!(
        error.contains("the vocabulary has no token `<|im_end|>` to end documents; name the token"),
        "{error}"
    );
    fs::remove_file(&config).unwrap();
    assert_eq!(eos(None).unwrap(), 0, "by its usual name");
    let renamed = fs::read_to_string(path.join("tokenizer.json"))
        .unwrap()
        .replace("<|endoftext|>", "<|other|>");
    fs::write(path.join("tokenizer.json"), renamed).unwrap();
    let error = eos(None).unwrap_err().to_string();
    assert!(
        error.contains("no tokenizer_config.json beside it says which token ends a document"),
        "{error}"
    );
}

#[test]
fn tokens_of_the_configuration_are_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder);
    let declare = |id: &str, content: &str| {
        edit(&path.join("tokenizer_config.json"), |config| {
            config["added_tokens_decoder"] = json!({
                "0": { "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true },
                id: { "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true },
            });
        });
        Tokenizer::load(&path, None)
    };
    let tokenizer = declare("600", "<|im_end|>").unwrap();
    assert_eq!(tokenizer.vocab_size(), 601);
    let Tokenizer::Hf(hf) = &tokenizer else { panic!("a tokenizer.json") };
    assert!(matches!(hf.cuts(), pieces::Cuts::Words));
    let ids = tokenizer.encode(b"a b<|im_end|>").unwrap();
    assert_eq!((ids.last(), ids == uncut(&tokenizer, "a b<|im_end|>")), (Some(&600), true));
    assert!(
        matches!(declare("600", "<|im end|>").unwrap(), Tokenizer::Hf(hf) if matches!(hf.cuts(), pieces::Cuts::Unknown))
    );
    let error = declare("700", "<|im_end|>").unwrap_err().to_string();
    assert!(
        error.contains("gives `<|im_end|>` the id 700, and the next free id is 600"),
        "{error}"
    );
    let error = declare("x", "<|im_end|>").unwrap_err().to_string();
    assert!(
        error.contains("tokenizer_config.json declares `x`, which is no token with an id"),
        "{error}"
    );
}

#[test]
fn settings_that_would_cut_or_pad_texts_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder).join("tokenizer.json");
    let expected = Tokenizer::load(&path, None).unwrap().encode(b"a few words").unwrap();
    edit(&path, |definition| {
        definition["truncation"] = json!({ "direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0 });
        definition["padding"] = json!({ "strategy": { "Fixed": 64 }, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "x" });
    });
    assert_eq!(Tokenizer::load(&path, None).unwrap().encode(b"a few words").unwrap(), expected);
}

#[test]
fn files_that_are_no_tokenizer_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let error = || Tokenizer::load(folder.path(), None).unwrap_err().to_string();
    assert!(error().starts_with(&format!("{}: no such file", path.display())));
    for text in ["", "{", "{}", r#"{"model": {"type": "Unknown"}}"#] {
        fs::write(&path, text).unwrap();
        assert!(
            error().starts_with(&format!("{}: no usable tokenizer: ", path.display())),
            "{}",
            error()
        );
    }
    trained(&tempfile::tempdir_in(folder.path()).unwrap());
    let error = Tokenizer::load(Path::new("bytes"), Some("x")).unwrap_err().to_string();
    assert!(error.starts_with("`eos_token` is x"), "{error}");
}

#[test]
fn conversations_use_the_template_of_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder);
    let messages = [("user", " Hi "), ("assistant", "Hello")]
        .map(|(role, content)| Message { role: role.to_owned(), content: content.to_owned() });
    let render = || Tokenizer::load(&path, None).unwrap().render(&messages);
    assert_eq!(render().unwrap(), "user:  Hi \n\nassistant: Hello\n\n");
    assert_eq!(Tokenizer::Bytes.render(&messages).unwrap(), render().unwrap());

    let template = "{% for message in messages %}\n  {% if message['role'] == 'x' %}{{ raise_exception('no x') }}{% endif %}\n{{ '<|' + message.role + '|>' + message['content'].strip() + eos_token }}\n{% endfor %}\n{% if add_generation_prompt %}never{% endif %}";
    let expected = "<|user|>Hi<|endoftext|>\n<|assistant|>Hello<|endoftext|>\n";
    let config = path.join("tokenizer_config.json");
    edit(&config, |config| config["chat_template"] = json!(template));
    assert_eq!(render().unwrap(), expected);
    edit(&config, |config| {
        config["chat_template"] =
            json!([{ "name": "tool", "template": "t" }, { "name": "default", "template": "d" }])
    });
    assert_eq!(render().unwrap(), "d");
    fs::write(path.join("chat_template.jinja"), template).unwrap();
    assert_eq!(render().unwrap(), expected);

    let error = Tokenizer::load(&path, None)
        .unwrap()
        .render(&[Message { role: "x".to_owned(), content: String::new() }]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("its chat template fails: ") && error.contains("no x"), "{error}");
    fs::write(path.join("chat_template.jinja"), "{% for").unwrap();
    let error = Tokenizer::load(&path, None).unwrap_err().to_string();
    assert!(error.contains("its chat template fails: "), "{error}");
}
