//! `ssa generate` and `ssa chat`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{Run, command, copy_checkpoint, golden_case, ssa};
use serde_json::{Value, json};
use tempfile::TempDir;

const CASE: &str = "ssa_bs16_k4_T200";

/// A directory with the golden model `model` and a tokenizer of its 96 tokens: letters, digits and
/// marks of chat. Token 2 ends a text.
fn place() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    copy_checkpoint(&golden_case(CASE), &model);
    let letters = ('a'..='z').chain('A'..='Z').chain('0'..='9').map(String::from);
    let special = ["<unk>", "<s>", "</s>", "<user>", "<bot>", " ", ".", "\n"].map(str::to_owned);
    let more = (0..).map(|number| char::from_u32(0x4e00 + number).unwrap().to_string());
    let tokens: Vec<String> = special.into_iter().chain(letters).chain(more).take(96).collect();
    let vocab: serde_json::Map<_, _> =
        tokens.iter().zip(0..).map(|(token, id): (_, u32)| (token.clone(), id.into())).collect();
    let added: Vec<Value> = (0..5)
        .map(|id: usize| {
            json!({ "id": id, "content": tokens[id], "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false })
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": added,
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "(?s)." }, "behavior": "Isolated",
            "invert": false },
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } },
                { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [1], "tokens": ["<s>"] } } },
        "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    });
    fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    configure(directory.path(), &json!({}));
    directory
}

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
    {% if message.role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}\
    {{ '<user>' if message.role == 'user' else '<bot>' }}{{ message.content }}</s>{% endfor %}\
    {% if add_generation_prompt %}<bot>{% endif %}";

/// Writes `tokenizer_config.json` with these keys besides the special tokens.
fn configure(directory: &Path, keys: &Value) {
    let mut config = json!({ "bos_token": "<s>", "eos_token": "</s>" });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    fs::write(directory.join("model/tokenizer_config.json"), config.to_string()).unwrap();
}

/// A prompt longer than the budget of the model.
const PROMPT: &str = "the quick brown fox jumps over the lazy dog. The five boxing wizards jump \
    quickly. Sphinx of black quartz judge my vow. Pack my box with five dozen liquor jugs.";

fn generate(directory: &Path, more: &[&str]) -> Run {
    let common = ["generate", "--model", "model", "--max-tokens", "40"];
    ssa(directory, common.iter().chain(more))
}

fn generate_json(directory: &Path, more: &[&str]) -> Value {
    let run = generate(directory, &[more, &["--json", PROMPT]].concat()).succeeds();
    serde_json::from_str(&run.stdout).unwrap()
}

/// Runs with a text on standard input.
fn piped(directory: &Path, arguments: &[&str], input: &str) -> Run {
    let mut child = command(directory)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn text_streams_and_a_summary_follows() {
    let place = place();
    let sampled = ["--temperature", "0.9", "--seed", "3"];
    let json = generate_json(place.path(), &sampled);
    let text = json["text"].as_str().unwrap();
    assert!(!text.is_empty());
    assert_eq!(json["finish_reason"], "max_tokens");
    assert_eq!(json["ids"].as_array().unwrap().len(), 40);
    // One for each character, and the token at the beginning of a text.
    assert_eq!(json["prompt_tokens"], PROMPT.len() + 1);
    assert_eq!((&json["attention"], &json["budget"]), (&"full".into(), &Value::Null));
    let argument = generate(place.path(), &[&sampled[..], &[PROMPT]].concat()).succeeds();
    assert_eq!(argument.stdout, text);
    for part in ["prompt: 161 tokens at ", "text: 40 tokens at ", "ended by --max-tokens"] {
        assert!(argument.stderr.contains(part), "`{part}` is not in:\n{}", argument.stderr);
    }
    fs::write(place.path().join("prompt.txt"), format!("{PROMPT}\n")).unwrap();
    let file = generate(place.path(), &[&sampled[..], &["--file", "prompt.txt"]].concat());
    assert_eq!(file.succeeds().stdout, text);
    let flags = ["generate", "--model", "model", "--max-tokens", "40", "--threads", "1"];
    let stdin = piped(place.path(), &[&flags[..], &sampled].concat(), PROMPT).succeeds();
    assert_eq!(stdin.stdout, text, "from standard input, with one thread");
    let other = generate_json(place.path(), &["--temperature", "0.9", "--seed", "4"]);
    assert_ne!(other["text"], text);
}

#[test]
fn drafts_change_the_summary_only() {
    let place = place();
    for sampling in [&[][..], &["--temperature", "0.8", "--top-p", "0.95"]] {
        let plain = generate_json(place.path(), sampling);
        for budget in ["16x1", "mass=0.9,1..4"] {
            let drafts = ["--speculate", "3", "--budget", budget];
            let json = generate_json(place.path(), &[sampling, &drafts].concat());
            assert_eq!(json["ids"], plain["ids"]);
            assert!(json["drafted_tokens"].as_u64().unwrap() > 0, "{json}");
            assert_eq!(json["budget"], budget);
        }
    }
    let run = generate(place.path(), &["--speculate", "3", PROMPT]).succeeds();
    assert!(
        run.stderr.contains("drafts: ") && run.stderr.contains(" accepted ("),
        "{}",
        run.stderr
    );
}

#[test]
fn budgets_are_counted() {
    let place = place();
    let blocks = |budget: &str| {
        let json = generate_json(place.path(), &["--budget", budget]);
        assert_eq!((&json["attention"], &json["block_size"]), (&"sparse".into(), &16.into()));
        let number = |key: &str| json[key].as_f64().unwrap();
        (number("blocks_read"), number("estimated_mass"))
    };
    let (two, mass_of_two) = blocks("16x2");
    let (four, mass_of_four) = blocks("16x4");
    assert_eq!((two, four), (2.0, 4.0));
    assert!(mass_of_two < mass_of_four && mass_of_four <= 1.0 + 1e-5);
    let (some, mass) = blocks("mass=0.5,1..9");
    assert!((1.0..=9.0).contains(&some) && mass >= 0.5, "{some} blocks, {mass}");
    let run = generate(place.path(), &["--attention", "sparse", PROMPT]).succeeds();
    let part = "sparse attention: 4.0 blocks of 16 tokens read, about ";
    assert!(run.stderr.contains(part), "{}", run.stderr);
    let full = generate_json(place.path(), &[]);
    let all = generate_json(place.path(), &["--budget", "16x99"]);
    assert_eq!(all["ids"], full["ids"], "all blocks are full attention");
}

#[test]
fn stop_strings_and_ends_of_text_end_a_text() {
    let place = place();
    let sampled = ["--temperature", "1", "--seed", "1"];
    let whole = generate_json(place.path(), &sampled);
    let text = whole["text"].as_str().unwrap();
    let characters: Vec<char> = text.chars().collect();
    let stop: String = characters[7..10].iter().collect();
    let end = text.find(&stop).unwrap();
    let stops = ["--stop", "not there", "--stop", stop.as_str()];
    let run = generate(place.path(), &[&sampled[..], &stops, &[PROMPT]].concat()).succeeds();
    assert_eq!(run.stdout, text[..end]);
    assert!(run.stderr.contains("stopped"), "{}", run.stderr);

    let eos = whole["ids"][5].as_u64().unwrap();
    let first = whole["ids"].as_array().unwrap().iter().position(|id| *id == eos).unwrap();
    let config = json!({ "eos_token_id": [2, eos] });
    fs::write(place.path().join("model/generation_config.json"), config.to_string()).unwrap();
    let ended = generate_json(place.path(), &sampled);
    assert_eq!(ended["finish_reason"], "eos");
    assert_eq!(ended["ids"].as_array().unwrap().len(), first + 1);
    assert!(text.starts_with(ended["text"].as_str().unwrap()));
}

#[test]
fn recommended_sampling_is_the_default() {
    let place = place();
    let config = json!({ "do_sample": true, "temperature": 0.9, "top_k": 30 });
    fs::write(place.path().join("model/generation_config.json"), config.to_string()).unwrap();
    let recommended = generate_json(place.path(), &[]);
    let greedy = generate_json(place.path(), &["--temperature", "0"]);
    assert_ne!(recommended["ids"], greedy["ids"]);
    fs::remove_file(place.path().join("model/generation_config.json")).unwrap();
    let flags = ["--temperature", "0.9", "--top-k", "30"];
    assert_eq!(generate_json(place.path(), &flags)["ids"], recommended["ids"]);
    assert_eq!(generate_json(place.path(), &[])["ids"], greedy["ids"]);
}

#[test]
fn long_prompts_are_refused_or_shortened() {
    let place = place();
    let config = place.path().join("model/config.json");
    let text = fs::read_to_string(&config).unwrap();
    let short =
        text.replace("\"max_position_embeddings\": 4096", "\"max_position_embeddings\": 100");
    fs::write(config, short).unwrap();
    generate(place.path(), &[PROMPT]).fails(
        2,
        &["the prompt has 161 tokens", "context of 100", "hint: shorten it, or pass --truncate"],
    );
    let run = generate(place.path(), &["--truncate", "left", PROMPT]).succeeds();
    assert!(run.stderr.contains("warning: the first 101 of 161 tokens"), "{}", run.stderr);
    generate(place.path(), &["--truncate", "left", "--max-tokens", "100", PROMPT])
        .fails(2, &["--max-tokens"]);
    // A text ends with the context.
    let run = generate(place.path(), &["--max-tokens", "1000", "abc"]).succeeds();
    assert!(run.stderr.contains("ended by the model's context"), "{}", run.stderr);
}

#[test]
fn impossible_flags_are_named() {
    let place = place();
    for (flags, parts) in [
        (&["--temperature", "-1"][..], &["--temperature", "expected a number from 0 to 100"][..]),
        (&["--temperature", "hot"], &["--temperature", "expected a number"]),
        (&["--top-p", "1.5"], &["--top-p", "above 0 and at most 1"]),
        (&["--min-p", "2"], &["--min-p", "from 0 to 1"]),
        (&["--repetition-penalty", "0"], &["--repetition-penalty", "from 0.01 to 100"]),
        (&["--top-k", "-3"], &["--top-k"]),
        (&["--top-k", "3"], &["--top-k has no effect", "hint: pass --temperature"]),
        (&["--max-tokens", "0"], &["--max-tokens"]),
        (&["--stop", ""], &["--stop"]),
        (&["--truncate", "middle"], &["--truncate", "left"]),
        (&["--budget", "4"], &["--budget", "BLOCK_SIZExBLOCK_COUNTS", "mass=0.95"]),
        (&["--budget", "mass=2,1..4"], &["--budget", "mass=0.95"]),
        (&["--speculate", "0"], &["--speculate"]),
        (&["--attention", "full", "--budget", "16x2"], &["--budget 16x2 has no effect"]),
        (
            &["--attention", "sparse", "--speculate", "2"],
            &["--speculate checks drafts with full", "hint: pass --attention full"],
        ),
        (
            &["--budget", "mass=0.9,1..4", "--selection", "reference"],
            &["impossible with reference selection"],
        ),
        (&["--budget", "16x3", "--selection", "reference"], &["block_counts"]),
        (&["--file", "absent"], &["cannot be used with"]),
    ] {
        generate(place.path(), &[flags, &[PROMPT]].concat()).fails(2, parts);
    }
    generate(place.path(), &["--file", "absent"]).fails(3, &["--file absent: cannot be read"]);
    fs::write(place.path().join("model/generation_config.json"), "{").unwrap();
    generate(place.path(), &["a"]).fails(3, &["generation_config.json"]);
}

#[test]
fn a_chat_keeps_the_conversation_in_the_cache() {
    let place = place();
    configure(place.path(), &json!({ "chat_template": TEMPLATE }));
    let flags = ["--model", "model", "--temperature", "0.9", "--max-tokens", "20"];
    let chat = |more: &[&str], input: &str| {
        piped(place.path(), &[&["chat"], &flags[..], more].concat(), input)
    };
    let run =
        chat(&[], "hello\n\n\"\"\"\ntwo\nlines\n\"\"\"\n/nonsense\n/quit\nnever\n").succeeds();
    let answers: Vec<&str> = run.stdout.split_terminator('\n').collect();
    assert!(run.stderr.contains("unknown command /nonsense"), "{}", run.stderr);
    assert!(run.stderr.contains(" cached)"), "{}", run.stderr);
    // The same as if each answer had been generated from the whole conversation.
    let generated = |prompt: &str| {
        let arguments = [&["generate"], &flags[..], &["--seed", "0"]].concat();
        piped(place.path(), &arguments, prompt).succeeds().stdout
    };
    let mut prompt = "<user>hello</s><bot>".to_owned();
    let first = generated(&prompt);
    assert!(run.stdout.starts_with(&format!("{first}\n")), "{answers:?}");
    prompt += &format!("{first}</s><user>two\nlines</s><bot>");
    let second = generated(&prompt);
    assert_eq!(run.stdout, format!("{first}\n{second}\n"));
    let speculated = chat(&["--speculate", "3"], "hello\n\"\"\"\ntwo\nlines\n\"\"\"\n").succeeds();
    assert_eq!(speculated.stdout, run.stdout);
    let reset = chat(&[], "hello\n/reset\nhello").succeeds();
    assert_eq!(reset.stdout, format!("{first}\n{first}\n"));
    let long = format!("{}\n", "long ".repeat(1000));
    chat(&[], &long).fails(2, &["the prompt has 5", "hint: shorten the message"]);
    chat(&["--system", "Be brief."], "hello\n").fails(3, &["chat template", "no system messages"]);
}

#[test]
fn a_chat_needs_a_template() {
    let place = place();
    let chat = || ssa(place.path(), ["chat", "--model", "model"]);
    chat().fails(3, &["tokenizer.json: the tokenizer has no chat template", "`ssa generate`"]);
    configure(place.path(), &json!({ "chat_template": "{% for x in range(99999999) %}x" }));
    piped(place.path(), &["chat", "--model", "model"], "hello\n").fails(3, &["chat template of "]);
    fs::remove_file(place.path().join("model/tokenizer.json")).unwrap();
    chat().fails(3, &["vocabulary of 96", "text is read as bytes"]);
}

#[test]
fn a_run_generates_bytes() {
    let place = common::workplace();
    let train = ["train", "tiny.toml", "--run-dir", "out", "--no-eval"];
    ssa(place.path(), train).succeeds();
    let generate = |more: &[&str]| {
        ssa(place.path(), ["generate", "--model", "out", "--max-tokens", "30"].iter().chain(more))
    };
    let text = generate(&["the quick"]).succeeds().stdout;
    assert!(!text.is_empty());
    assert_eq!(generate(&["--speculate", "4", "the quick"]).succeeds().stdout, text);
    // Bytes that are not UTF-8 become U+FFFD.
    generate(&["--temperature", "5", "the quick"]).succeeds();
    generate(&[""]).fails(2, &["the prompt has no tokens"]);
    ssa(place.path(), ["chat", "--model", "out"]).fails(3, &["bytes: the tokenizer has no chat"]);
}
