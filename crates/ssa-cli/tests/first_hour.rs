//! What a new user types in the first hour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{command, ssa, workplace};
use serde_json::Value;

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_run_directory_is_a_model() {
    let directory = workplace();
    let train = ["train", "tiny.toml", "--run-dir", "out", "--no-eval"];
    ssa(directory.path(), train).succeeds();
    for verb in [&["eval", "perplexity", "--budget", "8x1"][..], &["analyze"]] {
        let [run, checkpoint] = ["out", "out/checkpoint"]
            .map(|model| ssa(directory.path(), verb.iter().chain(&["--model", model])).succeeds());
        assert!(run.stderr.contains("out is a run: using out/checkpoint"), "{}", run.stderr);
        let without_times =
            |text: &str| text.rsplit_once(" rows, ").map(|(table, _)| table.to_owned());
        assert_eq!(without_times(&run.stdout), without_times(&checkpoint.stdout));
        for part in ["out/checkpoint (ssa)", "the text held out by the run", "cpu"] {
            assert!(run.stdout.contains(part), "`{part}` is not in:\n{}", run.stdout);
        }
    }

    // An unfinished run has checkpoints only.
    let at = |path: &str| directory.path().join(path);
    fs::rename(at("out/checkpoint"), at("moved")).unwrap();
    let eval = ["eval", "perplexity", "--budget", "8x1", "--model", "out"];
    let run = ssa(directory.path(), eval).succeeds();
    assert!(run.stderr.contains("using out/checkpoints/step-6"), "{}", run.stderr);
    fs::remove_dir_all(at("out/checkpoints")).unwrap();
    ssa(directory.path(), eval).fails(3, &["out: this run has no checkpoint yet", "hint: "]);
    ssa(directory.path(), ["analyze", "--model", "text"])
        .fails(3, &["text: not a model: it has no config.json", "hint: "]);
}

#[test]
fn a_configuration_that_a_flag_has_swallowed_is_explained() {
    let directory = workplace();
    let parts = ["no configuration", "put the configuration first", "tiny.toml --data"];
    ssa(directory.path(), ["train", "--data", "text", "tiny.toml"]).fails(2, &parts);
    ssa(directory.path(), ["train"]).fails(2, &["no configuration", "configs/demo.toml"]);
}

#[test]
fn budgets_are_written_the_same_everywhere() {
    let directory = workplace();
    let train = ["train", "tiny.toml", "--run-dir", "out", "--set", "evaluation.budgets=8x1,4x2"];
    ssa(directory.path(), train).succeeds();
    let budgets = |results: &Value| -> Vec<Value> {
        results.as_array().unwrap().iter().map(|result| result["budget"].clone()).collect()
    };
    let summary = json(&directory.path().join("out/summary.json"));
    let expected = [Value::Null, "8x1".into(), "4x2".into()];
    assert_eq!(budgets(&summary["evaluation"]["results"]), expected);
    for flag in ["--budget", "--budgets"] {
        let eval = ["eval", "perplexity", "--model", "out", "--json", flag, "8x1,4x2"];
        let run = ssa(directory.path(), eval).succeeds();
        let found: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(budgets(&found["results"]), expected);
        assert_eq!(found["device"], "cpu");
        let command = found["command"].as_str().unwrap();
        assert!(command.ends_with(&format!("--json {flag} 8x1,4x2")), "{command}");
    }
    let toml = fs::read_to_string(directory.path().join("tiny.toml")).unwrap();
    let toml = toml.replace(r#"["8x1", "8x2", "8x8"]"#, r#""8x1, 8x2""#);
    fs::write(directory.path().join("string.toml"), toml).unwrap();
    ssa(directory.path(), ["train", "string.toml", "--dry-run"]).succeeds();
    let wrong = ["train", "tiny.toml", "--set", "evaluation.budgets=8x1;4x2"];
    ssa(directory.path(), wrong).fails(2, &["evaluation.budgets", "such as \"16x4\""]);
    let unquoted = ["train", "tiny.toml", "--set", "evaluation.budgets=[8x1]"];
    ssa(directory.path(), unquoted).fails(2, &["not TOML", "in single quotes"]);
}

#[test]
fn names_from_other_programs_get_a_hint() {
    let directory = workplace();
    ssa(directory.path(), ["serve", "--model", "out"]).fails(2, &["has no server yet"]);
    ssa(directory.path(), ["train", "tiny.toml", "--lr", "1"])
        .fails(2, &["--set optimizer.learning_rate=VALUE"]);
    let set = |setting: &str, key: &str| {
        let all = ["train", "tiny.toml", "--set", setting];
        ssa(directory.path(), all).fails(2, &["hint: did you mean", key]);
    };
    set("lr=1e-3", "optimizer.learning_rate");
    set("training.epochs=3", "training.steps");
    set("budget=16x4", "evaluation.budgets");
}

#[test]
fn a_run_reports_its_data() {
    let directory = workplace();
    let short = ["--no-eval", "--set", "training.steps=2", "--set", "monitoring.probe_tokens=64"];
    let train = |name: &'static str, more: &[&'static str]| {
        let all = ["train", "tiny.toml", "--run-dir", name];
        ssa(directory.path(), all.iter().chain(&short).chain(more)).succeeds()
    };
    let run = train("given", &[]);
    for part in [
        "training text: text: ",
        " passes",
        "held-out text: held-out part of text: ",
        "probes use the first 64",
        "warning: ",
        "held-out tokens are too few",
        "hint: hold out more",
    ] {
        assert!(run.stderr.contains(part), "`{part}` is not in:\n{}", run.stderr);
    }
    let run = train("built-in", &["--set", "data.paths=[]"]);
    assert!(run.stderr.contains("training text: built-in text: "), "{}", run.stderr);
    assert!(!run.stderr.contains("warning: "), "{}", run.stderr);
    let summary = json(&directory.path().join("built-in/summary.json"));
    assert_eq!(summary["data"][0], "built-in text");
    assert_eq!(summary["device"], "cpu");
    assert_eq!(summary["run"], "tiny");
    assert_eq!(summary["seed"], 0);
    let command = summary["command"].as_str().unwrap();
    assert!(command.starts_with("ssa train tiny.toml --run-dir built-in"), "{command}");
    let page = fs::read_to_string(directory.path().join("built-in/report.html")).unwrap();
    assert!(page.contains("built-in text") && page.contains("ssa train tiny.toml"));
}

#[test]
fn a_large_model_needs_data() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let configs = fs::canonicalize(configs).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for name in ["ssa-1b.toml", "ssa-300m.toml"] {
        let output =
            command(directory.path()).arg("train").arg(configs.join(name)).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("no data is named") && message.contains("--data"), "{message}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn only_budgets_of_training_are_called_trained() {
    let directory = workplace();
    for (method, trained) in [("full", false), ("moba", true)] {
        let set = format!("objective.method={method}");
        let run = ssa(directory.path(), ["train", "tiny.toml", "--run-dir", method, "--set", &set]);
        assert_eq!(run.succeeds().stdout.contains("(trained)"), trained, "{method}");
        let eval = ssa(directory.path(), ["eval", "perplexity", "--model", method]).succeeds();
        assert_eq!(eval.stdout.contains("(trained)"), trained, "{method}");
    }
    let summary = json(&directory.path().join("full/summary.json"));
    assert!(summary["trained_budget"].is_null());

    // Compression attention reads every earlier block.
    let set = ["--set", "objective.method=nsa", "--run-dir", "nsa"];
    ssa(directory.path(), ["train", "tiny.toml"].iter().chain(&set)).succeeds();
    let summary = json(&directory.path().join("nsa/summary.json"));
    let results = summary["evaluation"]["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result["receptive_field"].is_null()));
}
