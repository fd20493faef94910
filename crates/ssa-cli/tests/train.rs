//! `ssa train`, and the use of its checkpoint.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use common::{command, ssa, workplace};
use serde_json::Value;

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_run_leaves_everything_and_can_be_evaluated() {
    let directory = workplace();
    let at = |path: &str| directory.path().join(path);
    let run = ssa(directory.path(), ["train", "tiny.toml", "--run-dir", "out"]).succeeds();
    let files = [
        "config.toml",
        "metrics.jsonl",
        "summary.json",
        "report.html",
        "checkpoint/config.json",
        "checkpoint/model.safetensors",
    ];
    for file in files {
        assert!(at("out").join(file).is_file(), "{file}");
    }
    assert!(run.stdout.ends_with("report: out/report.html\n"), "{}", run.stdout);
    for text in ["byte unigram", "full", "8x2 (trained)", "bits/byte", "KL"] {
        assert!(run.stdout.contains(text), "`{text}` is not in:\n{}", run.stdout);
    }
    for text in ["step 2/6", "step 4/6", "step 6/6", "cross-entropy", "alignment", "tok/s", "eta"] {
        assert!(run.stderr.contains(text), "`{text}` is not in:\n{}", run.stderr);
    }
    assert_eq!(fs::read_to_string(at("out/metrics.jsonl")).unwrap().lines().count(), 6);

    let summary = json(&at("out/summary.json"));
    assert_eq!(summary["method"], "ssa");
    assert_eq!(summary["steps"], 6);
    assert_eq!(summary["train_tokens"], 6 * 2 * 64);
    assert_eq!(summary["config"]["data"]["sequence_length"], 64);
    let results = summary["evaluation"]["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    assert!(results.iter().all(|result| result["bits_per_byte"].as_f64().unwrap() > 0.0));
    // 8 blocks of 8 cover a row of 64: sparse equals full attention.
    assert!(results[3]["kl_full_sparse"].as_f64().unwrap() < 1e-6);
    let overall = &summary["analysis"]["hidden_states"][0]["overall"];
    assert_eq!(overall["bound_holds"], 1.0);

    // The same text, rows and budgets give the same numbers.
    let arguments =
        ["eval", "perplexity", "--model", "out/checkpoint", "--budgets", "8x1,8x2,8x8", "--json"];
    let eval: Value =
        serde_json::from_str(&ssa(directory.path(), arguments).succeeds().stdout).unwrap();
    assert_eq!(eval["baseline_bits_per_byte"], summary["baseline_bits_per_byte"]);
    for (again, first) in eval["results"].as_array().unwrap().iter().zip(results) {
        let bits = |result: &Value| result["bits_per_byte"].as_f64().unwrap();
        assert!((bits(again) - bits(first)).abs() < 1e-6, "{again} {first}");
    }
    let arguments = ["analyze", "--model", "out/checkpoint", "--tokens", "128", "--json"];
    let analysis: Value =
        serde_json::from_str(&ssa(directory.path(), arguments).succeeds().stdout).unwrap();
    assert_eq!(analysis["budget"], "8x2");
    assert_eq!(analysis["hidden_states"].as_array().unwrap().len(), 2);
}

/// Every name in a JSON value.
fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            found.insert(name.clone());
            names(value, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn the_reference_page_has_every_field() {
    let directory = workplace();
    ssa(directory.path(), ["train", "tiny.toml", "--run-dir", "out"]).succeeds();
    let mut summary = json(&directory.path().join("out/summary.json"));
    // The configuration has its own page.
    summary["config"] = Value::Null;
    let metrics = fs::read_to_string(directory.path().join("out/metrics.jsonl")).unwrap();
    let mut found = BTreeSet::new();
    names(&summary, &mut found);
    names(&serde_json::from_str(metrics.lines().next().unwrap()).unwrap(), &mut found);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/run-directory.md");
    let page = fs::read_to_string(page).unwrap();
    for name in found {
        assert!(page.contains(&format!("`{name}`")), "{name} is missing");
    }
}

#[test]
fn results_are_tables_unless_json_is_requested() {
    let directory = workplace();
    ssa(directory.path(), ["train", "tiny.toml", "--run-dir", "out", "--no-eval"]).succeeds();
    let summary = json(&directory.path().join("out/summary.json"));
    assert!(summary["evaluation"].is_null() && summary["analysis"].is_null());

    let model = ["--model", "out/checkpoint"];
    let eval = ssa(directory.path(), ["eval", "perplexity"].iter().chain(&model)).succeeds();
    for text in ["byte unigram", "8x32", "8x2 (trained)", "perplexity"] {
        assert!(eval.stdout.contains(text), "`{text}` is not in:\n{}", eval.stdout);
    }
    assert!(eval.stderr.contains("held out by the run"), "{}", eval.stderr);
    let analysis =
        ssa(directory.path(), ["analyze", "--budget", "4x2"].iter().chain(&model)).succeeds();
    for text in [
        "With the hidden states of full",
        "With the hidden states of sparse",
        "100.00 %",
        "budget 4x2",
    ] {
        assert!(analysis.stdout.contains(text), "`{text}` is not in:\n{}", analysis.stdout);
    }
    // Other text: no training text is known, so there is no baseline.
    let other = [
        "eval",
        "perplexity",
        "--data",
        "text/00.txt",
        "--sequence-length",
        "32",
        "--budgets",
        "8x1",
    ];
    let eval = ssa(directory.path(), other.iter().chain(&model)).succeeds();
    assert!(
        !eval.stdout.contains("byte unigram") && eval.stderr.contains("measuring on text/00.txt")
    );
}

#[test]
fn every_method_trains_and_is_evaluated() {
    let directory = workplace();
    for method in ["full", "moba", "nsa"] {
        let set = format!("objective.method={method}");
        let run = ssa(directory.path(), ["train", "tiny.toml", "--run-dir", method, "--set", &set])
            .succeeds();
        let summary = json(&directory.path().join(method).join("summary.json"));
        let modes = summary["evaluation"]["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| &result["mode"]);
        assert_eq!(modes.filter(|mode| *mode == "full").count(), usize::from(method != "nsa"));
        assert_eq!(summary["analysis"]["kl_full_sparse"].is_null(), method == "nsa");
        assert!(!run.stderr.contains("alignment"), "{}", run.stderr);
        let page = fs::read_to_string(directory.path().join(method).join("report.html")).unwrap();
        assert!(page.contains("Quality by budget") && !page.contains("NaN"));
    }
}

#[test]
fn runs_do_not_overwrite_each_other() {
    let directory = workplace();
    let train = ["train", "tiny.toml", "--no-eval", "--set", "training.steps=2"];
    let named = |more: &[&'static str]| {
        train.iter().chain(&["--run-dir", "out"]).chain(more).copied().collect::<Vec<_>>()
    };
    ssa(directory.path(), named(&[])).succeeds();
    ssa(directory.path(), named(&[]))
        .fails(2, &["out holds a finished run", "--overwrite", "--resume out"]);
    ssa(directory.path(), named(&["--overwrite"])).succeeds();
    fs::create_dir(directory.path().join("precious")).unwrap();
    fs::write(directory.path().join("precious/thesis.txt"), "x").unwrap();
    let arguments = train.iter().chain(&["--run-dir", "precious", "--overwrite"]);
    ssa(directory.path(), arguments).fails(2, &["precious", "not a run directory"]);
    assert!(directory.path().join("precious/thesis.txt").exists());
    ssa(directory.path(), train.iter().chain(&["--overwrite"])).fails(2, &["--run-dir"]);
    for _ in 0..2 {
        ssa(directory.path(), train).succeeds();
    }
    assert_eq!(fs::read_dir(directory.path().join("runs")).unwrap().count(), 2);
}

#[test]
fn invalid_configurations_are_refused_before_anything_is_written() {
    let directory = workplace();
    let check = |arguments: &[&str], parts: &[&str]| {
        let all = ["train", "tiny.toml", "--run-dir", "out"].iter().chain(arguments);
        ssa(directory.path(), all).fails(2, parts);
        assert!(!directory.path().join("out").exists());
    };
    check(&["--set", "training.stepz=3"], &["training.stepz", "did you mean `training.steps`?"]);
    check(&["--set", "training.steps=many"], &["training.steps", "many"]);
    check(&["--set", "training.steps=0"], &["training.steps"]);
    check(&["--set", "model.num_attention_heads=3"], &["model.num_attention_heads", "multiple"]);
    check(&["--set", "model.head_dim=7"], &["model.head_dim", "even"]);
    check(&["--set", "data.sequence_length=1"], &["data.sequence_length"]);
    check(&["--set", "nonsense"], &["nonsense", "key=value"]);
    check(
        &["--set", "objective.selection=reference", "--set", "model.block_counts=9"],
        &["block_counts", "reference"],
    );
    check(
        &["--set", "objective.selection=reference", "--set", "evaluation.budgets=['8x16']"],
        &["8x16"],
    );
    check(&["--set", "objective.method=dense"], &["objective.method", "dense"]);
    check(&["--threads", "0"], &["from 1 to 1024"]);
    check(&["--stepz", "3"], &["--stepz"]);
    ssa(directory.path(), ["train", "absent.toml"]).fails(2, &["absent.toml", "No such file"]);
    fs::write(directory.path().join("bad.toml"), "[run\n").unwrap();
    ssa(directory.path(), ["train", "bad.toml"]).fails(2, &["bad.toml, line 1"]);
}

#[test]
fn unusable_text_is_named() {
    let directory = workplace();
    let at = |path: &str| directory.path().join(path);
    fs::write(at("empty.txt"), "").unwrap();
    fs::create_dir(at("hollow")).unwrap();
    fs::write(at("short.txt"), "just a few words").unwrap();
    let check = |data: &str, parts: &[&str]| {
        let run = ssa(directory.path(), ["train", "tiny.toml", "--run-dir", "out", "--data", data]);
        run.fails(3, parts);
        assert!(!at("out").exists(), "{data}");
    };
    check("absent.txt", &["absent.txt", "no such file"]);
    check("empty.txt", &["empty.txt", "empty"]);
    check("hollow", &["hollow", "nothing to read"]);
    check("short.txt", &["one row needs 64", "sequence_length"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::write(at("secret.txt"), "text").unwrap();
        fs::set_permissions(at("secret.txt"), fs::Permissions::from_mode(0o000)).unwrap();
        // Root can read everything.
        if fs::read(at("secret.txt")).is_err() {
            check("secret.txt", &["secret.txt", "cannot be read"]);
        }
    }
}

#[test]
fn text_need_not_be_utf8() {
    let directory = workplace();
    let bytes: Vec<u8> = (0..4000u32).map(|index| (index * 37 % 255 + 1) as u8).collect();
    assert_eq!(std::str::from_utf8(&bytes).unwrap_err().valid_up_to(), 4);
    fs::write(directory.path().join("latin.txt"), bytes).unwrap();
    let arguments = [
        "train",
        "tiny.toml",
        "--run-dir",
        "out",
        "--data",
        "latin.txt",
        "--set",
        "training.steps=2",
    ];
    ssa(directory.path(), arguments).succeeds();
}

#[test]
fn a_diverging_run_has_its_own_exit_code() {
    let directory = workplace();
    let arguments = [
        "train",
        "tiny.toml",
        "--run-dir",
        "out",
        "--set",
        "optimizer.learning_rate=1e30",
        "--set",
        "optimizer.warmup_steps=0",
        "--set",
        "training.steps=20",
    ];
    let run = ssa(directory.path(), arguments);
    let parts = [
        "step ",
        " on rows ",
        "bad steps in a row",
        "the first bad value is in ",
        "optimizer.learning_rate",
    ];
    run.fails(4, &parts);
    let journal = fs::read_to_string(directory.path().join("out/journal.jsonl")).unwrap();
    assert_eq!(journal.matches("\"event\":\"skipped\"").count(), 2, "{journal}");
    assert!(journal.lines().last().unwrap().contains("\"event\":\"diverged\""), "{journal}");
    assert!(
        directory.path().join("out/checkpoint/model.safetensors").is_file(),
        "the last weights are kept"
    );
}

#[test]
fn evaluation_refuses_what_cannot_be_evaluated() {
    let directory = workplace();
    ssa(directory.path(), ["train", "tiny.toml", "--run-dir", "out", "--no-eval"]).succeeds();
    let eval =
        |arguments: &[&str]| ssa(directory.path(), ["eval", "perplexity"].iter().chain(arguments));
    let model = "out/checkpoint";
    eval(&["--model", model, "--budgets", "8by4"]).fails(2, &["8by4", "BLOCK_SIZExBLOCK_COUNTS"]);
    eval(&["--model", model, "--sequence-length", "65"])
        .fails(2, &["65", "max_position_embeddings of 64"]);
    eval(&["--model", model, "--selection", "reference", "--budgets", "4x8"])
        .fails(2, &["4x8", "reference"]);
    eval(&["--model", model, "--data", "absent"]).fails(3, &["absent"]);
    // The run's text is found from any directory, as long as it exists.
    let elsewhere =
        || ssa(&directory.path().join("out"), ["eval", "perplexity", "--model", "checkpoint"]);
    elsewhere().succeeds();
    let [text, gone] = ["text", "gone"].map(|name| directory.path().join(name));
    fs::rename(&text, &gone).unwrap();
    elsewhere().fails(3, &["pass --data", "caused by: text: no such file"]);
    fs::rename(&gone, &text).unwrap();
    eval(&["--model", "text"]).fails(3, &["config.json"]);
    let golden = common::golden_case("ssa_bs16_k4_T200");
    eval(&["--model", golden.to_str().unwrap()]).fails(3, &["vocabulary of 96", "257"]);
    ssa(directory.path(), ["analyze", "--model", model, "--budget", "0x4"]).fails(2, &["0x4"]);
}

#[test]
fn a_broken_pipe_is_not_an_error() {
    let directory = workplace();
    ssa(directory.path(), ["train", "tiny.toml", "--run-dir", "out", "--no-eval"]).succeeds();
    let mut child = command(directory.path())
        .args(["eval", "perplexity", "--model", "out/checkpoint", "--budgets", "8x1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{stderr}");
}
