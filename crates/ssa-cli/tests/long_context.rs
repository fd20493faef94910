//! `ssa eval context-length`, generated tasks and LongBench rows, on a small model.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Run, command, ssa};
use serde_json::Value;
use ssa_testkit::golden_dir;

/// A directory with a book of about 5,000 words and a short document.
fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let words = ["river", "lamp", "seven", "under", "quiet", "stone", "again", "door"];
    let sentence = |number: usize| {
        let word = |place: usize| words[(number * 7 + place * place * 3 + number / 5) % 8];
        format!("{} {} {} {}.", word(0), word(1), word(2), word(3))
    };
    let book: Vec<String> = (0..1250).map(sentence).collect();
    fs::write(directory.path().join("book.txt"), book.join(" ")).unwrap();
    fs::write(directory.path().join("note.txt"), "too short").unwrap();
    directory
}

fn arguments(first: &[&str], more: &[&str]) -> Vec<String> {
    let model = fs::canonicalize(golden_dir().join("harness/model")).unwrap();
    let model = model.display().to_string();
    let common = ["--device", "cpu", "--model", &model];
    [&["eval"][..], first, &common, more].concat().iter().map(|&text| text.to_owned()).collect()
}

fn context_length(directory: &Path, more: &[&str]) -> Run {
    ssa(directory, arguments(&["context-length"], more))
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

const SHORT: [&str; 6] =
    ["--data", "book.txt", "note.txt", "--lengths", "32,64,256", "--stride=16"];

#[test]
fn perplexity_is_a_table_json_and_a_page() {
    let place = place();
    let more =
        ["--windows", "9", "--rope", "none,linear,ntk,yarn,none", "--budget", "8x2,mass=0.9,1..4"];
    let more = [&SHORT[..], &more].concat();
    let run = context_length(place.path(), &[&more[..], &["--html", "page.html"]].concat());
    let run = run.succeeds();
    for text in ["scoring 9 windows of each length, from 1 document", "left out: 1 document"] {
        assert!(run.stderr.contains(text), "{}", run.stderr);
    }
    assert!(run.stderr.contains("extrapolating: the model's context has 128 tokens, windows"));
    assert!(run.stdout.contains("sparse mass=0.9,1..4") && run.stdout.contains("yarn"));
    let page = fs::read_to_string(place.path().join("page.html")).unwrap();
    assert_eq!(page.matches("<figure").count(), 1 + 4);

    let batches = |more_tokens: &str| {
        let run = [&more[..], &["--json", "--batch-tokens", more_tokens]].concat();
        json(&context_length(place.path(), &run).succeeds())
    };
    let output = batches("1");
    assert_eq!(output["results"].as_array().unwrap().len(), 4 * 3 * 3);
    assert_eq!((&output["scored_tokens"], &output["short_documents"]), (&144.into(), &1.into()));
    assert_eq!(output["results"], batches("9999")["results"], "batches do not matter");
    let first = &output["results"][0];
    assert_eq!((&first["rope"], &first["length"]), (&"none".into(), &32.into()));
    let perplexity = first["perplexity"].as_f64().unwrap();
    assert!(run.stdout.contains(&format!("{perplexity:.3}")), "{}", run.stdout);
}

#[test]
fn a_killed_evaluation_by_length_resumes() {
    let place = place();
    let of = |output: &str| {
        let more = [&SHORT[..], &["--batch-tokens", "1", "--output", output]].concat();
        arguments(&["context-length"], &more)
    };
    ssa(place.path(), of("whole.json")).succeeds();
    let partial = place.path().join("killed.json.partial");
    let mut child = command(place.path()).args(of("killed.json")).spawn().unwrap();
    let start = Instant::now();
    while fs::read_to_string(&partial).map_or(0, |text| text.lines().count()) < 20
        && start.elapsed() < Duration::from_secs(60)
    {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(partial.is_file() && !place.path().join("killed.json").exists(), "killed in between");
    let run = ssa(place.path(), of("killed.json")).succeeds();
    assert!(run.stderr.contains("resuming killed.json.partial: "), "{}", run.stderr);
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(place.path().join(name)).unwrap()).unwrap()
    };
    assert_eq!(read("whole.json")["results"], read("killed.json")["results"]);
    ssa(place.path(), of("killed.json")).fails(2, &["killed.json exists", "--overwrite"]);
}

#[test]
fn faults_of_lengths_name_their_flag() {
    let place = place();
    let with = |more: &[&str]| context_length(place.path(), more);
    let short = ["--data", "note.txt", "--lengths", "64", "--stride", "16"];
    with(&short).fails(3, &["--data: no document has more than 48 tokens", "hint: pass shorter"]);
    let stride = ["--data", "book.txt", "--lengths", "64", "--stride", "64"];
    with(&stride).fails(2, &["--stride 64: must be shorter than the shortest window"]);
    with(&["--data", "book.txt", "--lengths", "1x"]).fails(2, &["one such as 4k"]);
    with(&["--data", "book.txt", "--rope", "yarm"]).fails(2, &["yarm", "yarn"]);
    with(&["--data", "absent.txt"]).fails(3, &["absent.txt"]);
    with(&["--lengths", "64"]).fails(2, &["--data"]);
    fs::write(place.path().join("empty.txt"), "").unwrap();
    let empty = ["--data", "empty.txt", "--lengths", "64", "--stride", "16"];
    with(&empty).fails(3, &["empty.txt: the file is empty"]);
}

#[test]
fn needles_have_results_by_length_and_depth() {
    let place = place();
    let own =
        "include: niah_single_choice\ntask: needle\ndoc_to_text: \"{{context}} {{query}}:\"\n";
    fs::write(place.path().join("needle.yaml"), own).unwrap();
    let own = "include: vt\ntask: chain\ngenerator: {kind: variables, hops: 1}\n\
               doc_to_text: \"{{context}} {{query}}:\"\n";
    fs::write(place.path().join("chain.yaml"), own).unwrap();
    let run = |more: &[&str]| {
        let grid = ["--lengths", "110,400", "--depths", "0,100", "--samples", "3"];
        let more = [&["--data", "needle=book.txt"], &grid[..], more].concat();
        ssa(place.path(), arguments(&["needle.yaml", "chain.yaml"], &more)).succeeds()
    };
    let found = run(&["--budget", "8x2", "--json", "--batch-tokens", "1"]);
    assert!(found.stderr.contains("warning: needle: the context of "), "{}", found.stderr);
    let results = json(&found)["results"].clone();
    let again = json(&run(&["--budget", "8x2", "--json", "--batch-tokens", "9999"]));
    assert_eq!(results, again["results"]);
    let needle = &results[0];
    assert_eq!((&needle["documents"], &needle["generated"]["seed"]), (&12.into(), &42.into()));
    let cells = needle["cells"].as_array().unwrap();
    let places: Vec<_> = cells.iter().map(|cell| (&cell["length"], &cell["depth"])).collect();
    let expected = [(110, 0), (110, 100), (400, 0), (400, 100)];
    for ((length, depth), expected) in places.into_iter().zip(expected) {
        assert_eq!((length, depth), (&expected.0.into(), &expected.1.into()));
    }
    let truncated = |cell: &Value| cell["truncated"].as_u64().unwrap();
    assert_eq!([0, 2].map(|index| truncated(&cells[index])), [0, 3], "longer than the model");
    let means: f64 = cells.iter().map(|cell| cell["metrics"][0]["value"].as_f64().unwrap()).sum();
    let all = needle["metrics"][0]["value"].as_f64().unwrap();
    assert!((means / 4.0 - all).abs() < 1e-9, "cells of equal size");
    let chain = &results[1];
    assert_eq!((&chain["task"], &chain["attention"]), (&"chain".into(), &"full".into()));
    assert_eq!(chain["cells"][0]["depth"], Value::Null);
    let table = run(&[]).stdout;
    assert!(table.contains("needle: acc by length") && table.contains("(cut)"), "{table}");
    let longer = run(&["--json", "--context-length", "400", "--rope", "yarn"]);
    assert!(longer.stderr.contains("extrapolating: the context of 400 tokens is longer"));
    let output = json(&longer);
    assert_eq!((&output["context_length"], &output["rope"]), (&400.into(), &"yarn".into()));
    assert_eq!(output["results"][0]["truncated"]["requests"], 0);
    let short = ["--data", "needle=book.txt", "--lengths", "20"];
    ssa(place.path(), arguments(&["needle.yaml"], &short))
        .fails(3, &["needle.yaml: a document of 20 tokens has no room", "hint: pass --lengths"]);
}

#[test]
fn rows_of_longbench_are_scored_with_its_metrics() {
    let place = place();
    let context = fs::read_to_string(place.path().join("book.txt")).unwrap();
    let row = |input: &str, answers: &[&str]| {
        serde_json::json!({
            "input": input, "context": context, "answers": answers, "length": 5000,
            "dataset": "qasper", "language": "en", "all_classes": null, "_id": "ab12",
        })
    };
    let rows = [row("Which door?", &["the quiet door", "a lamp"]), row("Why?", &["river"])];
    let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(place.path().join("qasper.jsonl"), rows).unwrap();
    let task = "task: qasper\ntest_split: test\n\
                dataset_kwargs: {data_files: {test: qasper.jsonl}}\n\
                truncate: middle\ndoc_to_text: \"Read: {{context}} Question: {{input}}\"\n\
                doc_to_target: answers\ngeneration_kwargs: {until: [], max_gen_toks: 8}\n\
                metric_list:\n  - metric: f1\n  - metric: rouge_l\n  - metric: exact_match\n    \
                normalize_answer: true\n";
    fs::write(place.path().join("qasper.yaml"), task).unwrap();
    let run = ssa(place.path(), arguments(&["qasper.yaml"], &["--json", "--log-samples"]));
    let run = run.succeeds();
    assert!(run.stderr.contains("warning: qasper: the context of 2 requests"), "{}", run.stderr);
    let result = json(&run)["results"][0].clone();
    assert_eq!(result["truncated"]["requests"], 2);
    let metrics: Vec<&str> = result["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|metric| metric["metric"].as_str().unwrap())
        .collect();
    assert_eq!(metrics, ["f1", "rouge_l", "exact_match"]);
    let wrong = task.replace("truncate: middle", "truncate: center");
    fs::write(place.path().join("qasper.yaml"), wrong).unwrap();
    ssa(place.path(), arguments(&["qasper.yaml"], &[]))
        .fails(3, &["qasper.yaml: unknown truncate `center`"]);
}
