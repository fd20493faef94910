//! Monitoring a run: probes, validation, event files, the best weights; and continued training from
//! a checkpoint.

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

/// Probes after steps 2, 4 and 6, validates after 3 and 6, on all held-out text.
const WATCHED: [&str; 10] = [
    "--set",
    "monitoring.probe_every=2",
    "--set",
    "monitoring.validate_every=3",
    "--set",
    "monitoring.validation_tokens=1000000",
    "--set",
    "monitoring.probe_tokens=128",
    "--set",
    "monitoring.peak_tflops=0.5",
];

fn train(run_dir: &'static str) -> Vec<&'static str> {
    vec!["train", "tiny.toml", "--no-eval", "--run-dir", run_dir]
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn probes_and_validations_are_logged_when_due() {
    let directory = workplace();
    let run = ssa(directory.path(), train("out").iter().chain(&WATCHED)).succeeds();
    for text in [
        "probe 2  full: sparsity 0.",
        "probe 6",
        "valid 3",
        "sparse bits/byte; the best so far",
        "full stream",
        " tok/s  mfu ",
    ] {
        assert!(run.stderr.contains(text), "`{text}` is not in:\n{}", run.stderr);
    }
    let steps = lines(&directory.path().join("out/metrics.jsonl"));
    let having = |key: &str| -> Vec<&Value> {
        steps.iter().filter(|step| step.get(key).is_some()).map(|step| &step["step"]).collect()
    };
    assert_eq!(having("probe"), [2, 4, 6]);
    assert_eq!(having("validation"), [3, 6]);

    for step in &steps {
        let [tflops, mfu] = ["tflops", "mfu"].map(|key| step[key].as_f64().unwrap());
        assert!(tflops > 0.0 && (mfu - tflops / 0.5).abs() < 1e-12, "{step}");
    }

    let probe = &steps[1]["probe"];
    assert_eq!(probe["tokens"], 128);
    for (states, mode) in probe["hidden_states"].as_array().unwrap().iter().zip(["full", "sparse"])
    {
        assert_eq!(states["mode"], mode);
        let layers = states["layers"].as_array().unwrap();
        let mean =
            |key: &str| layers.iter().map(|layer| layer[key].as_f64().unwrap()).sum::<f64>() / 2.0;
        for key in ["attention_sparsity", "entropy_bits", "distance"] {
            assert!((mean(key) - states["overall"][key].as_f64().unwrap()).abs() < 1e-9, "{key}");
        }
    }
    let streams = |range: std::ops::Range<usize>| {
        steps[range].iter().map(|step| step["full_streams"].as_f64().unwrap()).sum::<f64>() / 2.0
    };
    assert_eq!(probe["full_streams"], streams(0..2));
    assert_eq!(steps[5]["probe"]["full_streams"], streams(4..6));

    let events: Vec<_> = fs::read_dir(directory.path().join("out/tensorboard")).unwrap().collect();
    let name = events[0].as_ref().unwrap().file_name().into_string().unwrap();
    assert!(events.len() == 1 && name.starts_with("events.out.tfevents."), "{name}");
    let bytes = fs::read(directory.path().join("out/tensorboard").join(name)).unwrap();
    for tag in ["train/loss", "probe/attention_sparsity/full", "validation/bits_per_byte/sparse"] {
        assert!(bytes.windows(tag.len()).any(|window| window == tag.as_bytes()), "{tag}");
    }
}

/// The output to a terminal of this width, if `script` can create one.
#[cfg(target_os = "linux")]
fn on_a_terminal(columns: usize, directory: &Path, arguments: &[&str]) -> Option<String> {
    let program = common::command(directory);
    let quoted = arguments.iter().map(|argument| format!(" '{argument}'")).collect::<String>();
    let line =
        format!("stty cols {columns} rows 30; '{}'{quoted}", program.get_program().display());
    let mut script = std::process::Command::new("script");
    script.args(["-q", "-e", "-c", &line, "/dev/null"]).current_dir(directory);
    let output = script.stdin(std::process::Stdio::null()).env("TERM", "xterm").output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    Some(text)
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_curves_that_a_resumed_run_continues() {
    let directory = workplace();
    let named = [&train("out")[..], &WATCHED].concat();
    let Some(text) = on_a_terminal(130, directory.path(), &named) else {
        return println!("skipped: no script");
    };
    // The bars of the last frame, concatenated.
    let frame = |text: &str, bar: &str| text.rsplit_once(bar).unwrap().1.to_owned();
    let last = frame(&text, " 6/6  ");
    let parts = [
        " tok/s  mfu ",
        "loss ",
        "alignment ",
        "sparsity ",
        "validation ",
        "full stream 50 %",
        " at step 6",
    ];
    for part in parts {
        assert!(last.contains(part), "`{part}` is not in {last:?}");
    }
    assert!(!text.contains("step 6/6"), "no plain lines: {text:?}");

    let more = ["train", "--resume", "out", "--no-eval", "--set", "training.steps=7"];
    let more = [&more[..], &["--allow-change", "training.steps"]].concat();
    let text = on_a_terminal(130, directory.path(), &more).unwrap();
    let last = frame(&text, " 7/7  ");
    let curve = last.split("loss ").nth(1).unwrap().split("  cross-entropy").next().unwrap();
    assert_eq!(
        curve.chars().filter(|c| ('\u{2581}'..='\u{2588}').contains(c)).count(),
        7,
        "{curve:?}"
    );

    let plain = on_a_terminal(130, directory.path(), &[&train("plain")[..], &["--plain"]].concat())
        .unwrap();
    assert!(plain.contains("step 6/6  loss ") && !plain.contains('\u{2581}'), "{plain:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn view_and_tables_fit_narrow_terminals() {
    let directory = workplace();
    for columns in [60, 80] {
        let name = format!("at-{columns}");
        let arguments = ["train", "tiny.toml", "--run-dir", &name];
        let arguments = [&arguments[..], &WATCHED].concat();
        let Some(text) = on_a_terminal(columns, directory.path(), &arguments) else {
            return println!("skipped: no script");
        };
        assert!(text.contains(" 6/6  ") && text.contains("8x8"), "{text}");
        let drawn = |line: &&str| line.contains(['\u{2500}', '\u{2501}', '\u{2581}']);
        for line in text.lines().filter(drawn) {
            // Colors and cursor movements have no width.
            let parts = line.split("\x1b[").enumerate();
            let shown = parts.map(|(index, part)| match index {
                0 => part,
                _ => part.split_once(['m', 'A', 'J', 'K']).unwrap().1,
            });
            let shown = shown.collect::<String>().trim().chars().count();
            assert!(shown <= columns, "{shown} of {columns}: {line:?}");
        }
        assert!(text.contains(&format!("not shown in {columns} columns: ")), "{text}");
    }
}

#[test]
fn the_best_weights_are_those_of_the_lowest_validation_loss() {
    let directory = workplace();
    ssa(directory.path(), train("out").iter().chain(&WATCHED)).succeeds();
    let at = |path: &str| directory.path().join("out").join(path);
    let validations: Vec<Value> = lines(&at("metrics.jsonl"))
        .iter()
        .filter_map(|step| step.get("validation").cloned())
        .collect();
    let bits = |validation: &Value| validation["sparse"]["bits_per_byte"].as_f64().unwrap();
    let lowest = validations.iter().map(bits).fold(f64::INFINITY, f64::min);
    let best = json(&at("best/best.json"));
    assert_eq!(best["by"], "sparse");
    assert_eq!(bits(&best["validation"]), lowest);

    // The saved weights are the measured ones.
    let eval = [
        "eval",
        "perplexity",
        "--model",
        "out/best",
        "--budgets",
        "8x2",
        "--analysis-tokens",
        "0",
        "--json",
    ];
    let eval: Value = serde_json::from_str(&ssa(directory.path(), eval).succeeds().stdout).unwrap();
    for (result, mode) in eval["results"].as_array().unwrap().iter().zip(["full", "sparse"]) {
        let kept = best["validation"][mode]["bits_per_byte"].as_f64().unwrap();
        assert!((result["bits_per_byte"].as_f64().unwrap() - kept).abs() < 1e-6, "{result}");
    }
}

#[test]
fn monitoring_changes_nothing_and_can_be_disabled() {
    let directory = workplace();
    let off =
        ["monitoring.probe_every=0", "monitoring.validate_every=0", "monitoring.tensorboard=false"];
    let off = off.iter().flat_map(|setting| ["--set", setting]).collect::<Vec<_>>();
    ssa(directory.path(), train("watched").iter().chain(&WATCHED)).succeeds();
    let run = ssa(directory.path(), train("alone").iter().chain(&off)).succeeds();
    assert!(!run.stderr.contains("probe") && !run.stderr.contains("valid "), "{}", run.stderr);
    let weights = |run: &str| {
        fs::read(directory.path().join(run).join("checkpoint/model.safetensors")).unwrap()
    };
    assert!(weights("watched") == weights("alone"));
    assert!(!directory.path().join("alone/tensorboard").exists());
    assert!(!directory.path().join("alone/best").exists());

    // Overwriting removes the additional files of the monitored run.
    ssa(directory.path(), train("watched").iter().chain(&off).chain(&["--overwrite"])).succeeds();
    assert!(!directory.path().join("watched/tensorboard").exists());
    assert!(!directory.path().join("watched/best").exists());
}

#[test]
fn every_method_can_be_monitored() {
    let directory = workplace();
    for (method, by) in [("full", "full"), ("moba", "sparse"), ("nsa", "sparse")] {
        let set = format!("objective.method={method}");
        let arguments = ["train", "tiny.toml", "--no-eval", "--run-dir", method, "--set", &set];
        ssa(directory.path(), arguments.iter().chain(&WATCHED)).succeeds();
        assert_eq!(json(&directory.path().join(method).join("best/best.json"))["by"], by);
        let step = lines(&directory.path().join(method).join("metrics.jsonl")).remove(5);
        assert_eq!(step["validation"]["full"].is_null(), method == "nsa");
        assert_eq!(
            step["probe"]["hidden_states"].as_array().unwrap().len(),
            if method == "nsa" { 1 } else { 2 }
        );
    }
}

#[test]
fn the_reference_page_has_every_measured_field() {
    let directory = workplace();
    ssa(directory.path(), train("out").iter().chain(&WATCHED)).succeeds();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/run-directory.md");
    let page = fs::read_to_string(page).unwrap();
    fn check(value: &Value, page: &str) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                assert!(page.contains(&format!("`{name}`")), "{name} is missing");
                check(value, page);
            }),
            Value::Array(values) => values.iter().for_each(|value| check(value, page)),
            _ => {}
        }
    }
    check(&lines(&directory.path().join("out/metrics.jsonl"))[5], &page);
    check(&json(&directory.path().join("out/best/best.json")), &page);
}

#[test]
fn a_checkpoint_is_trained_with_a_longer_context() {
    let directory = workplace();
    ssa(directory.path(), train("base")).succeeds();
    let longer = [
        "--set",
        "model.init_from=base/checkpoint",
        "--set",
        "data.sequence_length=256",
        "--set",
        "model.rope_scaling.factor=4",
        "--set",
        "model.rope_scaling.original_max_position_embeddings=64",
        "--set",
        "optimizer.learning_rate=1e-5",
        "--set",
        "training.steps=2",
    ];
    ssa(directory.path(), train("long").iter().chain(&longer)).succeeds();
    let config = json(&directory.path().join("long/checkpoint/config.json"));
    assert_eq!(config["max_position_embeddings"], 256);
    assert_eq!(config["rope_scaling"]["factor"], 4.0);
    assert_eq!(config["rope_scaling"]["original_max_position_embeddings"], 64);
    let weights = |run: &str| {
        fs::read(directory.path().join(run).join("checkpoint/model.safetensors")).unwrap()
    };
    assert!(weights("base") != weights("long"), "it was trained");
    // It starts from trained weights: random weights would have the loss of a uniform distribution,
    // 5.55 nats.
    let first = &lines(&directory.path().join("long/metrics.jsonl"))[0];
    let last = lines(&directory.path().join("base/metrics.jsonl")).remove(5);
    let loss = |step: &Value| step["cross_entropy"].as_f64().unwrap();
    assert!(loss(first) < 5.5 && (loss(first) - loss(&last)).abs() < 0.3, "{first} after {last}");

    let other = ["--set", "model.init_from=base/checkpoint", "--set", "model.rope_theta=10000"];
    let parts = ["base/checkpoint", "rope_theta is 10000, the checkpoint has 500000"];
    ssa(directory.path(), train("other").iter().chain(&other)).fails(2, &parts);
}
