//! `ssa compare`: units, tables, kills and mistakes.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use ssa_testkit::Random;
use tempfile::TempDir;

use common::{Run, command, ssa, workplace};

const GRID: &str = r#"
config = "tiny.toml"
seeds = [0, 1]

[set.checkpoint]
every_steps = 2

[[run]]
name = "full"
set = { objective.method = "full" }

[[run]]
name = "ssa"
"#;

/// A workplace with a grid of two runs and two seeds.
fn grid_place() -> TempDir {
    let directory = workplace();
    fs::write(directory.path().join("grid.toml"), GRID).unwrap();
    directory
}

fn compare(directory: &Path, arguments: &[&str]) -> Run {
    ssa(directory, [&["compare", "grid.toml", "--threads", "1"], arguments].concat())
}

/// The files of a comparison that hold nothing but its tables.
fn tables(output: &Path) -> [String; 3] {
    ["txt", "md", "csv"]
        .map(|ending| fs::read_to_string(output.join(format!("comparison.{ending}"))).unwrap())
}

/// The column of states of `--list`.
fn states(directory: &Path) -> Vec<String> {
    let list = compare(directory, &["--list"]).succeeds().stdout;
    let of_unit = |line: &str| line.contains("runs/grid/");
    let state = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[3..words.len() - 1].join(" ")
    };
    list.lines().filter(|line| of_unit(line)).map(state).collect()
}

#[test]
fn units_are_trained_alone_or_together() {
    let directory = grid_place();
    let output = directory.path().join("runs/grid");
    assert_eq!(states(directory.path()), ["new"; 4]);
    assert!(!output.exists(), "--list writes nothing");

    // Unit 2 is ssa with seed 0.
    compare(directory.path(), &["--only", "2"]).succeeds();
    assert_eq!(states(directory.path()), ["new", "finished", "new", "new"]);
    assert!(output.join("ssa-seed0/summary.json").is_file());
    assert!(!output.join("comparison.json").exists(), "one unit is no comparison");
    let again = compare(directory.path(), &["--only", "2"]).succeeds();
    assert!(again.stderr.contains("this unit is finished"), "{}", again.stderr);
    compare(directory.path(), &["--only", "5"]).fails(2, &["--only 5: the grid has 4 units"]);

    let run = compare(directory.path(), &[]).succeeds();
    assert_eq!(states(directory.path()), ["finished"; 4]);
    assert!(run.stdout.contains("Bits per byte minus those of full"), "{}", run.stdout);
    assert!(run.stdout.ends_with("comparison: runs/grid/comparison.html\n"), "{}", run.stdout);
    let text = fs::read_to_string(output.join("comparison.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    check_means(&json, &output);
    let page = fs::read_to_string(output.join("comparison.html")).unwrap();
    assert!(page.contains("objective.method = &quot;full&quot;") && !page.contains("<script"));

    // The same command again computes nothing and writes the same.
    let before = tables(&output);
    compare(directory.path(), &[]).succeeds();
    assert_eq!(tables(&output), before);
}

/// Checks the mean of bits per byte over seeds against the summaries.
fn check_means(comparison: &Value, output: &Path) {
    let table = &comparison["tables"][0];
    assert_eq!(table["metric"], "bits_per_byte");
    assert_eq!(table["columns"][0], "full");
    for (row, name) in ["full", "ssa"].iter().enumerate() {
        let of_seed = |seed: u64| {
            let path = output.join(format!("{name}-seed{seed}/summary.json"));
            let summary: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
            summary["evaluation"]["results"][0]["bits_per_byte"].as_f64().unwrap()
        };
        let mean = (of_seed(0) + of_seed(1)) / 2.0;
        let cell = &table["rows"][row]["cells"][0];
        assert!((cell["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{cell}");
        assert_eq!(cell["by_seed"]["1"].as_f64().unwrap(), of_seed(1));
    }
}

#[test]
fn a_comparison_killed_at_random_ends_with_the_same_tables() {
    let directory = grid_place();
    let begin = Instant::now();
    compare(directory.path(), &["--output", "straight"]).succeeds();
    let length = begin.elapsed();
    let mut random = Random::new(u64::from(std::process::id()));
    let mut killed = 0;
    for _ in 0..6 {
        let mut child = command(directory.path())
            .args(["compare", "grid.toml", "--threads", "1", "--output", "killed"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let part = f64::from(random.below(1000, 1)[0]) / 1000.0;
        sleep(Duration::from_millis(5) + length.mul_f64(part / 3.0));
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().code().is_none());
    }
    assert!(killed > 0, "no kill came before the end");
    compare(directory.path(), &["--output", "killed"]).succeeds();
    let [straight, killed] =
        ["straight", "killed"].map(|name| tables(&directory.path().join(name)));
    assert_eq!(killed, straight);
}

#[test]
fn a_changed_unit_is_refused_and_kept() {
    let directory = grid_place();
    compare(directory.path(), &["--only", "1"]).succeeds();
    let config = directory.path().join("runs/grid/full-seed0/config.toml");
    let before = fs::read(&config).unwrap();
    compare(directory.path(), &["--set", "training.steps=7"]).fails(
        2,
        &[
            "runs/grid/full-seed0/config.toml: the unit was started with other settings: \
             training.steps is 7, was 6",
            "hint: restore the settings, or name another --output",
        ],
    );
    assert_eq!(fs::read(&config).unwrap(), before);
    assert!(!directory.path().join("runs/grid/ssa-seed0").exists(), "nothing was trained");

    let other = directory.path().join("runs/grid/ssa-seed1");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes.txt"), "mine").unwrap();
    compare(directory.path(), &[]).fails(2, &["ssa-seed1 is not a run directory"]);
    assert_eq!(fs::read_to_string(other.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn mistakes_in_a_grid_are_found_before_training() {
    let directory = grid_place();
    let write = |text: &str| fs::write(directory.path().join("grid.toml"), text).unwrap();
    for (text, parts) in [
        (GRID.replace("seeds", "seds"), &["grid.toml: unknown key `seds`", "`seeds`?"][..]),
        (
            GRID.replace("objective.method", "objective.methd"),
            &["grid.toml, run `full`: unknown key `objective.methd`", "`objective.method`?"],
        ),
        (GRID.replace("[0, 1]", "[]"), &["grid.toml: `seeds` is empty"]),
        (GRID.replace("\"ssa\"", "\"full\""), &["grid.toml: `run` has two entries full"]),
        (GRID.replace("tiny.toml", "absent.toml"), &["absent.toml"]),
        (
            GRID.replace("every_steps = 2", "every_steps = 2\nkeep_last = 0"),
            &["grid.toml, run `full`: `checkpoint.keep_last` is 0"],
        ),
    ] {
        write(&text);
        compare(directory.path(), &[]).fails(2, parts);
    }
    ssa(directory.path(), ["compare", "none.toml"]).fails(2, &["none.toml"]);
    assert!(!directory.path().join("runs").exists());
}

#[test]
fn runs_of_different_tokenizers_have_bits_per_byte_only() {
    let directory = grid_place();
    let train = ["data", "train-tokenizer", "text", "--vocab-size", "300"];
    ssa(directory.path(), [&train[..], &["--output", "bpe"]].concat()).succeeds();
    let run = "[[run]]\nname = \"bpe\"\nset = { data.tokenizer = \"bpe\" }\n";
    fs::write(directory.path().join("grid.toml"), format!("{GRID}\n{run}")).unwrap();
    let result = compare(directory.path(), &[]).succeeds();
    assert!(result.stdout.contains("note: The runs have different tokenizers"));
    let csv = fs::read_to_string(directory.path().join("runs/grid/comparison.csv")).unwrap();
    assert!(csv.lines().skip(1).all(|line| line.starts_with("bits_per_byte")), "{csv}");
}

#[test]
fn a_diverged_unit_leaves_the_others() {
    let directory = grid_place();
    let run = "[[run]]\nname = \"hot\"\nset = { optimizer.learning_rate = 1e30 }\n";
    let text = format!("{GRID}\n{run}").replace("[0, 1]", "[0]");
    fs::write(directory.path().join("grid.toml"), text).unwrap();
    let ended = compare(directory.path(), &[]).fails(4, &["the comparison lacks hot, seed 0"]);
    assert!(ended.stdout.contains("note: There are no results of hot, seed 0"), "{}", ended.stdout);
    assert_eq!(states(directory.path())[..2], ["finished"; 2]);
    let markdown = fs::read_to_string(directory.path().join("runs/grid/comparison.md")).unwrap();
    assert!(markdown.contains("| hot | \u{2013} |"), "{markdown}");
}
