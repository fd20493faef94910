//! The help of every verb, as kept in `tests/help/`. After a change on purpose:
//! SSA_UPDATE_SNAPSHOTS=1 cargo test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

fn check(name: &str, arguments: &[&str]) {
    let run = common::ssa(Path::new("."), arguments).succeeds();
    assert_eq!(run.stderr, "");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help").join(format!("{name}.txt"));
    if std::env::var_os("SSA_UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &run.stdout).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(run.stdout, expected, "{} differs; update it if that is meant", path.display());
}

#[test]
fn program() {
    check("ssa", &["--help"]);
}

#[test]
fn data() {
    check("data", &["data", "--help"]);
    check("data-prepare", &["data", "prepare", "--help"]);
    check("data-train-tokenizer", &["data", "train-tokenizer", "--help"]);
    check("data-inspect", &["data", "inspect", "--help"]);
}

#[test]
fn train() {
    check("train", &["train", "--help"]);
}

#[test]
fn eval() {
    check("eval", &["eval", "--help"]);
    check("eval-perplexity", &["eval", "perplexity", "--help"]);
}

#[test]
fn analyze() {
    check("analyze", &["analyze", "--help"]);
}

#[test]
fn forward() {
    check("forward", &["forward", "--help"]);
}

#[test]
fn bench() {
    check("bench", &["bench", "--help"]);
    check("bench-attention", &["bench", "attention", "--help"]);
    check("bench-gemm", &["bench", "gemm", "--help"]);
    check("bench-step", &["bench", "step", "--help"]);
}

#[test]
fn selftest_and_doctor() {
    check("selftest", &["selftest", "--help"]);
    check("doctor", &["doctor", "--help"]);
}

#[test]
fn version_names_the_commit() {
    let version = common::ssa(Path::new("."), ["--version"]).succeeds().stdout;
    assert!(version.starts_with(concat!("ssa ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
}
