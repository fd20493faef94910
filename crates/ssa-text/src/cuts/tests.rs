use std::cell::RefCell;
use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::tests::uncut;

/// The mark for a space.
const MARK_TEXT: &str = "\u{2581}";

/// A small tokenizer with marks for spaces, with some tokens that contain `!` before a mark.
fn definition(normalizer: &Value, pre_tokenizer: &Value) -> Value {
    let merges = [
        "\u{2581} a",
        "a b",
        "\u{2581}a b",
        "\u{2581} \u{2581}",
        "! \u{2581}",
        "!\u{2581} a",
        "b !",
    ];
    let mut vocabulary: Vec<String> =
        ["<unk>", "</s>", "\u{2581}", "a", "b", "!", ">", "<", "\n"].map(str::to_owned).to_vec();
    vocabulary.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let vocabulary: serde_json::Map<_, _> =
        vocabulary.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    let added = |id: usize, content: &str| {
        json!({ "id": id, "content": content, "special": true, "normalized": false,
            "single_word": false,
            "lstrip": false, "rstrip": false })
    };
    json!({
        "version": "1.0",
        "added_tokens": [added(0, "<unk>"), added(1, "</s>"), added(20, "[\n]")],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": null,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": merges, "unk_token": "<unk>",
            "fuse_unk": true,
            "byte_fallback": false, "dropout": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null },
    })
}

/// The steps before BPE in published tokenizers of this kind.
fn steps() -> Vec<(Value, Value)> {
    let prepend = json!({ "type": "Prepend", "prepend": MARK_TEXT });
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": MARK_TEXT });
    let split = json!({ "type": "Split", "pattern": { "String": " " },
        "behavior": "MergedWithPrevious",
        "invert": false });
    let metaspace = |scheme: &str, split: bool| {
        json!({ "type": "Metaspace", "replacement": MARK_TEXT, "prepend_scheme": scheme,
            "split": split })
    };
    let both = json!({ "type": "Sequence", "normalizers": [prepend, replace] });
    vec![
        (both, Value::Null),
        (replace.clone(), Value::Null),
        (replace, split),
        (Value::Null, metaspace("first", false)),
        (Value::Null, metaspace("always", true)),
        (Value::Null, metaspace("never", true)),
    ]
}

fn load(definition: &Value) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, definition.to_string()).unwrap();
    Tokenizer::load(&path, None).unwrap()
}

fn is_cut(tokenizer: &Tokenizer) -> bool {
    let Tokenizer::Hf(tokenizer) = tokenizer else { panic!("a tokenizer.json") };
    matches!(tokenizer.cuts(), Cuts::Marks(_))
}

#[test]
fn pieces_have_the_tokens_of_the_whole() {
    let alphabet = [
        " ", " ", "  ", "a", "b", "ab", "!", "\u{2581}", "</s>", "<unk>", ">", "<", "[\n]", "\n",
        "\u{e9}",
    ];
    let texts = prop::collection::vec(prop::sample::select(alphabet.to_vec()), 0..30);
    for (normalizer, pre_tokenizer) in steps() {
        let tokenizer = load(&definition(&normalizer, &pre_tokenizer));
        assert!(is_cut(&tokenizer), "{normalizer} {pre_tokenizer}");
        // One encoder for all texts: pieces repeat at the start of a text and inside.
        let encoder = RefCell::new(tokenizer.encoder());
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        runner
            .run(&texts, |text| {
                let text = text.concat();
                let mut ids = Vec::new();
                encoder.borrow_mut().append(text.as_bytes(), &mut ids).unwrap();
                prop_assert_eq!(
                    ids,
                    uncut(&tokenizer, &text),
                    "{:?} {} {}",
                    text,
                    normalizer,
                    pre_tokenizer
                );
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn cuts_avoid_everything_that_depends_on_both_sides() {
    let (normalizer, pre_tokenizer) = steps().remove(0);
    let marks = Marks::of(&definition(&normalizer, &pre_tokenizer)).unwrap();
    for (text, piece) in [
        ("a b", 1),
        ("ab", 2),
        (" a b", 2),
        ("a  b c", 1),
        ("a ", 2),
        ("b! a b", 4),
        ("</s> a b", 6),
        ("a </s> b", 8),
        ("a\n b", 2),
        ("\u{e9} b", 2),
    ] {
        assert_eq!(marks.piece(text), piece, "{text:?}");
    }
    let long = "a".repeat(MAX_PIECE_BYTES + 9);
    assert_eq!(marks.piece(&long), long.len());
}

#[test]
fn tokenizers_of_other_kinds_are_not_cut() {
    let (normalizer, pre_tokenizer) = steps().remove(0);
    let original = definition(&normalizer, &pre_tokenizer);
    assert!(is_cut(&load(&original)));
    let changes: [fn(&mut Value); 6] = [
        |definition| definition["added_tokens"][0]["normalized"] = json!(true),
        |definition| definition["added_tokens"][1]["lstrip"] = json!(true),
        |definition| definition["added_tokens"][2]["content"] = json!("< >"),
        |definition| definition["normalizer"]["normalizers"][0]["prepend"] = json!("x"),
        |definition| definition["normalizer"] = json!({ "type": "NFKC" }),
        |definition| definition["model"]["dropout"] = json!(0.5),
    ];
    for change in changes {
        let mut changed = original.clone();
        change(&mut changed);
        assert!(!is_cut(&load(&changed)), "{changed}");
    }
}
