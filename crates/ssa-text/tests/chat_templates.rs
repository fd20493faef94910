//! Chat templates render the same bytes as Jinja2 with the settings of transformers.
//!
//! `tests/golden/chat` has the output of Jinja2, written by `tests/python/chat_templates.py`. Files
//! in the folder `SSA_CHAT_TEMPLATES` are compared too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use ssa_text::{Conversation, Json, Tokenizer};

const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [],
    "model": {"type": "WordLevel", "vocab": {"</s>": 0}, "unk_token": "</s>"}}"#;

/// The comparison of one template: failures and number of cases.
struct Compared {
    failures: Vec<String>,
    cases: usize,
}

#[test]
fn templates_render_like_jinja2() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/chat");
    let more = std::env::var_os("SSA_CHAT_TEMPLATES").map(PathBuf::from);
    let mut all = Compared { failures: Vec::new(), cases: 0 };
    for directory in std::iter::once(committed).chain(more) {
        let mut paths: Vec<PathBuf> =
            directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        for path in paths {
            let Compared { failures, cases } = compare(&path);
            all.cases += cases;
            all.failures.extend(failures);
        }
    }
    let (failed, cases) = (all.failures.len(), all.cases);
    assert!(cases > 100, "{cases} cases");
    assert!(failed == 0, "{failed} of {cases} differ:\n{}", all.failures.join("\n"));
}

fn compare(path: &Path) -> Compared {
    let bytes = fs::read(path).unwrap();
    let golden: Value = serde_json::from_slice(&bytes).unwrap();
    let tokenizer = load(&golden);
    // Parsed a second time because the order of keys matters.
    let golden = Json::parse(&bytes).unwrap();
    let Some(Json::List(cases)) = golden.get("cases") else { panic!("cases") };
    let name = path.file_stem().unwrap().display();
    let failures = cases.iter().enumerate().flat_map(|(number, case)| {
        let messages = case.get("messages").unwrap().clone();
        let conversation = Conversation::new(messages, case.get("tools").cloned()).unwrap();
        let expected = case.get("expected").unwrap();
        // Written only where it differs.
        let prompt = case.get("prompt").unwrap_or(expected);
        let rendered = [
            ("text", expected, tokenizer.render(&conversation)),
            ("prompt", prompt, tokenizer.render_prompt(&conversation)),
        ];
        let name = &name;
        rendered.into_iter().filter_map(move |(what, expected, rendered)| {
            match (expected, &rendered) {
                (Json::String(expected), Ok(text)) if text == expected => None,
                (Json::Null, Err(_)) => None,
                _ => {
                    let difference = difference(expected, &rendered);
                    Some(format!("{name} {number}, {what}: {difference}"))
                }
            }
        })
    });
    Compared { failures: failures.collect(), cases: cases.len() }
}

fn difference(expected: &Json, rendered: &Result<String, ssa_text::TextError>) -> String {
    match (expected, rendered) {
        (Json::String(expected), Ok(text)) => {
            let at = expected.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
            let part = |text: &str| text.chars().skip(at.saturating_sub(40)).take(90).collect();
            let (expected, text): (String, String) = (part(expected), part(text));
            format!("expected ..{expected:?}\n    rendered ..{text:?}")
        }
        (expected, rendered) => {
            let start = |text: String| text.chars().take(150).collect::<String>();
            let rendered = match rendered {
                Ok(text) => format!("{text:?}"),
                Err(error) => error.to_string(),
            };
            format!("expected {}\n    got {}", start(format!("{expected:?}")), start(rendered))
        }
    }
}

fn load(golden: &Value) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let mut config = golden["special_tokens"].clone();
    config["chat_template"] = golden["template"].clone();
    fs::write(folder.path().join("tokenizer.json"), TOKENIZER).unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::load(folder.path(), None).unwrap()
}
