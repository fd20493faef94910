//! `ssa bench` on the CPU with small sizes: it runs and records results.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use serde_json::Value;

/// The record and the text of a run on the CPU.
fn bench(arguments: &[&str]) -> (Value, String) {
    let directory = common::workplace();
    let all = [&["bench"], arguments, &["--device", "cpu", "--json", "out.json"]].concat();
    let run = common::ssa(directory.path(), &all).succeeds();
    let record: Value =
        serde_json::from_slice(&fs::read(directory.path().join("out.json")).unwrap()).unwrap();
    assert!(record["peaks"]["tflops"].as_f64().unwrap() > 0.0);
    assert!(record["peaks"]["gb_per_s"].as_f64().unwrap() > 0.0);
    for key in ["date", "version", "commit", "device", "settings"] {
        assert!(!record[key].is_null(), "{key}");
    }
    // Nothing is overwritten by default.
    common::ssa(directory.path(), &all).fails(2, &["out.json", "--overwrite"]);
    (record, run.stdout)
}

#[test]
fn attention() {
    let sizes = ["--tokens", "33,64", "--budgets", "8x2", "--heads", "4/2", "--head-dim", "16"];
    let (record, text) = bench(&[&["attention"], &sizes[..]].concat());
    let rows = record["results"].as_array().unwrap();
    for tokens in [33, 64] {
        let parts: Vec<&str> = rows
            .iter()
            .filter(|row| row["tokens"] == tokens)
            .map(|row| {
                assert!(row["error"].is_null() && row["ms"].as_f64().unwrap() > 0.0, "{row}");
                row["part"].as_str().unwrap()
            })
            .collect();
        for part in [
            "full forward",
            "full backward",
            "pooling",
            "selection",
            "sparse forward",
            "gate and alignment backward",
        ] {
            assert!(parts.contains(&part), "{part}: {parts:?}");
        }
        assert_eq!(
            parts.iter().filter(|&&part| part == "sparse backward").count(),
            2,
            "random and local"
        );
    }
    assert!(text.contains("selection + sparse forward + backward 8x2, random blocks"), "{text}");
}

#[test]
fn step() {
    let (record, text) = bench(&[
        "step",
        "--config",
        "tiny.toml",
        "--tokens",
        "32",
        "--steps",
        "2",
        "--warm-up",
        "1",
    ]);
    let rows = record["results"]["rows"].as_array().unwrap();
    let mut streams: Vec<&str> = rows.iter().map(|row| row["stream"].as_str().unwrap()).collect();
    streams.sort_unstable();
    assert_eq!(streams, ["full", "sparse"]);
    for row in rows {
        assert!(
            row["tokens_per_second"].as_f64().unwrap() > 0.0
                && row["tflops"].as_f64().unwrap() > 0.0
        );
    }
    assert_eq!(record["settings"]["method"], "ssa");
    assert!(text.contains("MFU"), "{text}");
}

#[test]
fn invalid_flags_are_reported() {
    let refused = |arguments: &[&str], part: &str| {
        let run = common::ssa(Path::new("."), [&["bench"], arguments].concat());
        run.fails(2, &[part]);
    };
    refused(&["attention", "--heads", "5/2"], "32/2");
    refused(&["step", "--preset", "ssa-2b"], "ssa-300m");
    refused(&["gemm", "--presets", "ssa-2b"], "ssa-1b");
}
