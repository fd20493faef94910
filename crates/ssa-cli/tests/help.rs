//! Help, version, configuration keys, completions and man pages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs::OpenOptions;
use std::path::Path;

use common::ssa;

#[test]
fn help_goes_to_standard_output() {
    for arguments in [&["--help"][..], &["train", "--help"], &["data", "prepare", "-h"], &["help"]]
    {
        let run = ssa(Path::new("."), arguments).succeeds();
        assert_eq!(run.stderr, "");
        assert!(run.stdout.contains("Usage: ssa"), "{}", run.stdout);
    }
}

#[test]
fn help_has_examples_environment_and_exit_codes() {
    let help = ssa(Path::new("."), ["--help"]).succeeds().stdout;
    for part in ["ssa train configs/demo.toml", "SSA_CACHE_DIR", "  4  a loss is not finite"] {
        assert!(help.contains(part), "`{part}` is not in:\n{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}

#[test]
fn flags_are_refused_where_they_do_nothing() {
    for arguments in [
        &["doctor", "--threads", "2"][..],
        &["data", "inspect", "corpus", "--device", "cpu"],
        &["data", "prepare", "text", "--output", "corpus", "--device", "cpu"],
        &["config", "--device", "cpu"],
    ] {
        ssa(Path::new("."), arguments).fails(2, &["unexpected argument"]);
    }
}

#[test]
fn configuration_keys_are_listed_with_types_and_defaults() {
    let all = ssa(Path::new("."), ["config"]).succeeds().stdout;
    let line =
        |key: &str| all.lines().find(|line| line.trim().starts_with(key)).unwrap().to_owned();
    assert!(line("training.steps").ends_with("200"), "{all}");
    assert!(line("training.recompute").contains("true or false"), "{all}");
    let one = ssa(Path::new("."), ["config", "optimizer", "run.seed"]).succeeds().stdout;
    for part in ["optimizer.learning_rate\n  type: ", "run.seed\n", "  default: 0\n"] {
        assert!(one.contains(part), "`{part}` is not in:\n{one}");
    }
    assert!(!one.contains("training.steps\n"), "{one}");
    let json = ssa(Path::new("."), ["config", "training.steps", "--json"]).succeeds().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(json[0]["key"], "training.steps");
    ssa(Path::new("."), ["config", "training.stepz"]).fails(2, &["did you mean `training.steps`"]);
    ssa(Path::new("."), ["config", "lr"]).fails(2, &["unknown key `lr`"]);
}

#[test]
fn completions_and_man_pages_are_printed() {
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef ssa"), ("fish", "complete -c")]
    {
        let script = ssa(Path::new("."), ["completions", shell]).succeeds().stdout;
        assert!(script.contains(part) && script.contains("train-tokenizer"), "{shell}");
    }
    let page = ssa(Path::new("."), ["man"]).succeeds().stdout;
    assert!(page.contains(".TH ssa 1") && page.contains("ssa\\-train(1)"), "{page}");
    let page = ssa(Path::new("."), ["man", "data", "prepare"]).succeeds().stdout;
    assert!(page.contains("ssa\\-data\\-prepare") && page.contains("eos\\-token"), "{page}");
    ssa(Path::new("."), ["man", "data", "bake"]).fails(2, &["`data bake`", "ssa --help"]);
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    for arguments in [&["--version"][..], &["--help"], &["config"], &["completions", "zsh"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = common::command(Path::new(".")).args(arguments).stdout(full).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {message}");
        assert!(message.starts_with("error: cannot write to standard output"), "{message}");
    }
}

#[test]
fn hints_have_their_own_line() {
    let run = ssa(Path::new("."), ["man", "bake"]).fails(2, &[]);
    assert_eq!(run.stderr, "error: ssa man: no verb `bake`\nhint: run `ssa --help`\n");
}

#[test]
fn version_names_the_commit() {
    let version = common::ssa(Path::new("."), ["--version"]).succeeds().stdout;
    assert!(version.starts_with(concat!("ssa ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
}
