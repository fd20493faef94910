use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::Json;
use crate::cuts::{Cuts, MAX_PIECE_BYTES, PATTERNS};
use crate::document::Document;
use crate::train::{TrainTokenizerOptions, train_tokenizer};

/// A tokenizer trained on this crate's own text.
pub(crate) fn trained(folder: &TempDir) -> PathBuf {
    let texts = [include_str!("tests.rs"), include_str!("../encoder.rs"), include_str!("mod.rs")];
    let document = |text: &str| Document { name: "x".to_owned(), text: text.as_bytes().to_vec() };
    let documents = texts.into_iter().map(|text| Ok::<_, TextError>(document(text)));
    let options = TrainTokenizerOptions { vocab_size: 600, min_frequency: 2 };
    assert_eq!(train_tokenizer(documents, folder.path(), &options, |_| ()).unwrap(), 600);
    folder.path().to_owned()
}

fn edit(path: &PathBuf, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// The ids of the whole text, encoded without cuts.
pub(crate) fn uncut(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let Tokenizer::Hf(tokenizer) = tokenizer else { panic!("a tokenizer.json") };
    let mut ids = Vec::new();
    tokenizer.append(text, &mut ids).unwrap();
    ids
}

/// Steps before BPE in published tokenizers that allow cuts.
fn pre_tokenizers() -> Vec<Value> {
    let split = |pattern: &str| {
        json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated",
            "invert": false })
    };
    let byte_level = |use_regex: bool| {
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": use_regex })
    };
    let (bytes, gpt2) = (byte_level(false), byte_level(true));
    let digits = json!({ "type": "Digits", "individual_digits": true });
    let sequence = |steps: &[&Value]| json!({ "type": "Sequence", "pretokenizers": steps });
    let mut all = vec![gpt2.clone(), sequence(&[&digits, &gpt2])];
    let patterns = PATTERNS;
    for pattern in patterns.iter().filter(|pattern| pattern.contains(r"\s+")) {
        all.push(sequence(&[&split(pattern), &bytes]));
    }
    // Two other notations of the same.
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
            assert!(matches!(hf.cuts(), Cuts::Words), "{pre_tokenizer}");
            let mut runner = proptest::test_runner::TestRunner::deterministic();
            runner
                .run(&texts, |text| {
                    let text = text.concat();
                    let mut encoder = tokenizer.encoder();
                    let mut ids = Vec::new();
                    encoder.append(text.as_bytes(), &mut ids).unwrap();
                    prop_assert_eq!(&ids, &uncut(&tokenizer, &text), "{:?}", text);
                    // Now from the cache.
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
        assert!(matches!(hf.cuts(), Cuts::Unknown));
    }
}

#[test]
fn text_without_a_cut_is_encoded_whole_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::load(&trained(&folder), None).unwrap();
    let text = "\u{e9}".repeat(1 << 20);
    let ids = tokenizer.encode(text.as_bytes()).unwrap();
    assert_eq!(ids, uncut(&tokenizer, &text));
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    let long = "x".repeat(MAX_PIECE_BYTES + 1);
    let error = tokenizer.encode(long.as_bytes()).unwrap_err().to_string();
    let expected = "a piece of 16777217 bytes is too long to encode, the limit is 16777216";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn white_space_tokens_do_not_cross_a_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder).join("tokenizer.json");
    edit(&path, |definition| {
        for (number, content) in ["  ", "    ", "\n\n", "\t"].into_iter().enumerate() {
            definition["added_tokens"].as_array_mut().unwrap().push(json!({
                "id": 600 + number, "content": content, "special": false, "normalized": true,
                "single_word": false, "lstrip": false, "rstrip": false }));
        }
    });
    let tokenizer = Tokenizer::load(&path, None).unwrap();
    let Tokenizer::Hf(hf) = &tokenizer else { panic!("a tokenizer.json") };
    assert!(matches!(hf.cuts(), Cuts::Words));
    let parts = ["a", "the", " ", "  ", "\n", "\t", ".", "7", "\u{e9}", "\u{a0}", "\r\n"];
    let texts = prop::collection::vec(prop::sample::select(parts.to_vec()), 0..40);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    runner
        .run(&texts, |text| {
            let text = text.concat();
            let ids = tokenizer.encode(text.as_bytes()).unwrap();
            prop_assert_eq!(ids, uncut(&tokenizer, &text), "{:?}", text);
            Ok(())
        })
        .unwrap();
    let long = ("x".repeat(99) + "\n\n").repeat(12_000);
    assert_eq!(tokenizer.encode(long.as_bytes()).unwrap(), uncut(&tokenizer, &long));
}

/// Tokenizers of other families, whose texts are never cut.
#[test]
fn other_families_have_the_tokens_of_the_whole_text() {
    let words: Vec<&str> =
        vec!["<unk>", "</s>", "\u{2581}", "\u{2581}a", "a", "b", "ab", "##b", "!"];
    let numbered: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let scored: Vec<Value> = words.iter().map(|word| json!([word, -1.0])).collect();
    let metaspace = |scheme: &str| {
        json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme,
            "split": true })
    };
    let lower = json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": null, "lowercase": true });
    let unigram =
        json!({ "type": "Unigram", "unk_id": 0, "vocab": scored, "byte_fallback": false });
    let definitions = [
        (Value::Null, metaspace("always"), unigram.clone()),
        (json!({ "type": "NFKC" }), metaspace("first"), unigram),
        (
            lower,
            json!({ "type": "BertPreTokenizer" }),
            json!({ "type": "WordPiece", "vocab": numbered,
            "unk_token": "<unk>", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100 }),
        ),
        (
            Value::Null,
            json!({ "type": "Whitespace" }),
            json!({ "type": "WordLevel", "vocab": numbered, "unk_token": "<unk>" }),
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let unit = ["a b", "ab", " ", "!", "\n", "B"].concat();
    for (normalizer, pre_tokenizer, model) in definitions {
        let definition = json!({ "version": "1.0", "added_tokens": [], "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "model": model });
        fs::write(&path, definition.to_string()).unwrap();
        let tokenizer = Tokenizer::load(&path, None).unwrap();
        for text in [unit.clone(), unit.repeat(3), unit.repeat(200_000)] {
            let ids = tokenizer.encode(text.as_bytes()).unwrap();
            assert!(ids == uncut(&tokenizer, &text), "{definition}");
        }
    }
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
    assert!(error.starts_with("not UTF-8 at byte 3\nhint: convert the text"), "{error}");
}

#[test]
fn training_errors_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let options = TrainTokenizerOptions { vocab_size: 300, min_frequency: 0 };
    let document = |text: &[u8]| Ok(Document { name: "x.txt".to_owned(), text: text.to_vec() });
    let train = |documents: Vec<Result<Document>>, options: TrainTokenizerOptions| {
        train_tokenizer(documents.into_iter(), folder.path(), &options, |_| ())
            .unwrap_err()
            .to_string()
    };
    let error = train(vec![], TrainTokenizerOptions { vocab_size: 256, ..options });
    assert_eq!(error, "`vocab_size` is 256, expected at least 257");
    assert!(train(vec![], options).contains("the documents hold no text"));
    assert!(train(vec![document(b"")], options).contains("the documents hold no text"));
    assert!(
        train(vec![document(b"a"), document(b"\xff")], options).starts_with("x.txt: not UTF-8")
    );
    assert!(
        train(vec![document(b"a"), Err(TextError::NoText)], options)
            .starts_with("the documents hold no text")
    );
    fs::write(folder.path().join("tokenizer_config.json"), "{}").unwrap();
    assert!(train(vec![document(b"a")], options).contains("tokenizer_config.json: already exists"));
    assert!(!folder.path().join("tokenizer.json").exists());
}

#[test]
fn the_end_of_document_is_found_or_requested() {
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
        error.contains(
            "the vocabulary has no token `<|im_end|>` to end documents\nhint: name the token"
        ),
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
        error.contains("no tokenizer_config.json next to it defines the end-of-document token"),
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
                "0": { "content": "<|endoftext|>", "single_word": false, "lstrip": false,
                    "rstrip": false,
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
    assert!(matches!(hf.cuts(), Cuts::Words));
    let ids = tokenizer.encode(b"a b<|im_end|>").unwrap();
    assert_eq!((ids.last(), ids == uncut(&tokenizer, "a b<|im_end|>")), (Some(&600), true));
    assert!(matches!(
        declare("600", "<|im end|>").unwrap(),
        Tokenizer::Hf(hf) if matches!(hf.cuts(), Cuts::Unknown)
    ));
    let error = declare("700", "<|im_end|>").unwrap_err().to_string();
    assert!(
        error.contains("gives `<|im_end|>` the id 700, but the next free id is 600"),
        "{error}"
    );
    let error = declare("x", "<|im_end|>").unwrap_err().to_string();
    assert!(
        error.contains("tokenizer_config.json declares `x`, which is not a token with an id"),
        "{error}"
    );
}

#[test]
fn settings_that_would_cut_or_pad_texts_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder).join("tokenizer.json");
    let expected = Tokenizer::load(&path, None).unwrap().encode(b"a few words").unwrap();
    edit(&path, |definition| {
        definition["truncation"] = json!({ "direction": "Right", "max_length": 1,
            "strategy": "LongestFirst", "stride": 0 });
        definition["padding"] = json!({ "strategy": { "Fixed": 64 }, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "x" });
    });
    assert_eq!(Tokenizer::load(&path, None).unwrap().encode(b"a few words").unwrap(), expected);
}

#[test]
fn files_that_are_not_a_tokenizer_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let error = || Tokenizer::load(folder.path(), None).unwrap_err().to_string();
    assert!(error().starts_with(&format!("{}: no such file", path.display())));
    for text in ["", "{", "{}", r#"{"model": {"type": "Unknown"}}"#] {
        fs::write(&path, text).unwrap();
        assert!(
            error().starts_with(&format!("{}: not a usable tokenizer: ", path.display())),
            "{}",
            error()
        );
    }
    trained(&tempfile::tempdir_in(folder.path()).unwrap());
    let error = Tokenizer::load(Path::new("bytes"), Some("x")).unwrap_err().to_string();
    assert!(error.starts_with("`eos_token` is x"), "{error}");
}

fn conversation(json: &str) -> Conversation {
    Conversation::from_json(json.as_bytes()).unwrap()
}

#[test]
fn conversations_use_the_template_of_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder);
    let messages = conversation(
        r#"[{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Hello"}]"#,
    );
    let render = || Tokenizer::load(&path, None).unwrap().render(&messages);
    assert_eq!(render().unwrap(), "user:  Hi \n\nassistant: Hello\n\n");
    assert_eq!(Tokenizer::Bytes.render(&messages).unwrap(), render().unwrap());

    let template = "{% for message in messages %}\n  \
        {% if message['role'] == 'x' %}{{ raise_exception('no x') }}{% endif %}\n\
        {{ '<|' + message.role + '|>' + message['content'].strip() + eos_token }}\n\
        {% endfor %}\n{% if add_generation_prompt %}never{% endif %}";
    let expected = "<|user|>Hi<|endoftext|>\n<|assistant|>Hello<|endoftext|>\n";
    let config = path.join("tokenizer_config.json");
    edit(&config, |config| config["chat_template"] = json!(template));
    assert_eq!(render().unwrap(), expected);
    edit(&config, |config| {
        config["chat_template"] =
            json!([{ "name": "tool_use", "template": "t" }, { "name": "default", "template": "d" }])
    });
    assert_eq!(render().unwrap(), "d");
    let tools = Conversation::new(Json::List(vec![]), Some(Json::List(vec![]))).unwrap();
    assert_eq!(Tokenizer::load(&path, None).unwrap().render(&tools).unwrap(), "t");
    fs::write(path.join("chat_template.jinja"), template).unwrap();
    assert_eq!(render().unwrap(), expected);

    let refused = conversation(r#"[{"role": "x", "content": ""}]"#);
    let error = Tokenizer::load(&path, None).unwrap().render(&refused).unwrap_err().to_string();
    let file = path.join("chat_template.jinja").display().to_string();
    assert_eq!(error, format!("chat template of {file}: line 2: no x"));
    // A template is compiled on first use.
    fs::write(path.join("chat_template.jinja"), "{% for").unwrap();
    let tokenizer = Tokenizer::load(&path, None).unwrap();
    let error = tokenizer.render(&refused).unwrap_err().to_string();
    assert!(error.starts_with(&format!("chat template of {file}: line 1: ")), "{error}");
}

#[test]
fn without_a_template_only_text_is_written() {
    let parts = r#"[
        {"role": "a", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
        {"role": "b", "content": null}, {"role": "c"},
        {"role": "d", "content": "z", "tool_calls": null}]"#;
    let text = Tokenizer::Bytes.render(&conversation(parts)).unwrap();
    assert_eq!(text, "a: xy\n\nb: \n\nc: \n\nd: z\n\n");
    for (messages, cause) in [
        (
            r#"[{"role": "a", "content": null, "tool_calls": [{}]}]"#,
            "`tool_calls` of message 0 needs a chat template",
        ),
        (
            r#"[{"role": "a"}, {"role": "a", "content": [{"type": "image"}]}]"#,
            "`content` of message 1 needs a chat template",
        ),
        (r#"[{"content": "a"}]"#, "message 0 has no `role`"),
    ] {
        let error = Tokenizer::Bytes.render(&conversation(messages)).unwrap_err().to_string();
        assert!(error.starts_with(cause), "{error}");
    }
    for (messages, cause) in [
        ("{}", "expected a list of messages, found an object"),
        ("[1]", "message 0 is a number, expected an object"),
        ("[", "not JSON: "),
    ] {
        let error = Conversation::from_json(messages.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(cause), "{error}");
    }
}

/// Templates that would use unlimited time or memory.
#[test]
fn templates_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder);
    let messages = conversation(r#"[{"role": "user", "content": "hello"}]"#);
    for template in [
        "{{ messages|tojson(indent=99999999999) }}",
        "{% set ns = namespace(x='x') %}\
         {% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}\
         {% endfor %}{% endfor %}{% endfor %}",
        "{{ 'x' * 9999999999 }}",
        "{{ 'x'.center(99999999999) }}",
        "{{ '%099999999999d' % 1 }}",
        "{{ '%s'|format('x') ~ ('x' * 999999999) }}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    ] {
        fs::write(path.join("chat_template.jinja"), template).unwrap();
        let error = Tokenizer::load(&path, None).unwrap().render(&messages).unwrap_err();
        assert!(matches!(error, TextError::ChatTemplate { .. }), "{template}: {error}");
    }
}

#[test]
fn a_nested_value_does_not_overflow_the_stack() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder);
    let nested = "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}\
        {% for j in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
    fs::write(path.join("chat_template.jinja"), nested).unwrap();
    let messages = conversation(r#"[{"role": "user", "content": "hello"}]"#);
    let error = Tokenizer::load(&path, None).unwrap().render(&messages).unwrap_err().to_string();
    assert!(error.contains("fuel"), "{error}");
}

#[test]
fn files_of_other_kinds_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, bytes, kind) in [
        ("tokenizer.model", &b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0"[..], "a SentencePiece model"),
        ("tekken.json", br#"{"config": {"pattern": ""}, "vocab": []}"#, "a Tekken vocabulary"),
        ("x.tiktoken", b"IQ== 0\nIg== 1\n", "a tiktoken vocabulary"),
        ("merges.txt", b"#version: 0.2\na b\n", "a list of merges"),
        ("vocab.json", br#"{"a": 0, "b": 1}"#, "a vocabulary without its merges"),
        ("tokenizer_config.json", br#"{"tokenizer_class": "X"}"#, "a tokenizer_config.json"),
        ("config.json", br#"{"model_type": "llama"}"#, "the config.json of a model"),
        ("x.gguf", b"GGUF\x03", "a GGUF model"),
    ] {
        fs::write(at(name), bytes).unwrap();
        let error = Tokenizer::load(&at(name), None).unwrap_err().to_string();
        let start = format!("{}: not a usable tokenizer: it is {kind}", at(name).display());
        assert!(error.starts_with(&start), "{error}");
        assert!(error.contains("hint: a tokenizer.json is needed"), "{error}");
        fs::remove_file(at(name)).unwrap();
    }
    fs::write(at("tekken.json"), "").unwrap();
    let error = Tokenizer::load(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("it has no tokenizer.json, only tekken.json"), "{error}");
}

#[test]
fn limits_of_a_file_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder).join("tokenizer.json");
    let original: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 2] = [
        (
            |definition| definition["model"]["vocab"]["zz"] = json!(4_000_000_000_u32),
            "its largest id is",
        ),
        (
            |definition| {
                definition["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
                    json!("(?=x)((a{1000}){1000}){1000}")
            },
            "an expression repeats its parts 1000000000 times",
        ),
    ];
    for (change, cause) in changes {
        fs::write(&path, original.to_string()).unwrap();
        edit(&path, change);
        let error = Tokenizer::load(&path, None).unwrap_err().to_string();
        assert!(error.contains(cause), "{error}");
    }
}

#[test]
fn a_text_that_is_refused_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::load(&trained(&folder), None).unwrap();
    let documents = [("a.txt", &b"good"[..]), ("4.txt", b"caf\xe9")]
        .map(|(name, text)| Document { name: name.to_owned(), text: text.to_vec() });
    let error = tokenizer.encode_documents(&documents).unwrap_err().to_string();
    assert!(error.starts_with("4.txt: not UTF-8 at byte 3\nhint: "), "{error}");
    // A text that ends with the token gets no second one.
    let ended = Document { name: "x".to_owned(), text: b"a<|endoftext|>".to_vec() };
    let ids = tokenizer.encode_documents(&[ended]).unwrap();
    assert_eq!(ids, [tokenizer.encode(b"a").unwrap()]);
}

#[test]
fn templates_know_the_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(&folder);
    let messages = conversation(r#"[{"role": "user", "content": "hello"}]"#);
    fs::write(path.join("chat_template.jinja"), "{{ strftime_now('%Y-%m-%d') }}").unwrap();
    let date = Tokenizer::load(&path, None).unwrap().render(&messages).unwrap();
    assert!(date.len() == 10 && date.starts_with("20"), "{date}");
}
