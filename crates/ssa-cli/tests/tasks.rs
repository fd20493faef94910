//! `ssa eval TASK...`: against the answers of lm-evaluation-harness, for any batch, after a kill.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Run, command, ssa};
use serde_json::Value;
use ssa_testkit::golden_dir;

/// How much log-likelihoods may differ from those of PyTorch.
const TOLERANCE: f64 = 1e-3;

fn golden() -> PathBuf {
    fs::canonicalize(golden_dir().join("harness")).unwrap()
}

/// The command for tasks on the golden model, with local rows.
fn arguments(tasks: &[&str], more: &[&str]) -> Vec<String> {
    let rows = golden().join("rows");
    let mut arguments = vec!["eval".to_owned()];
    let place = |task: &&str| match rows.join(format!("{task}.yaml")) {
        own if own.is_file() => own.display().to_string(),
        _ => (*task).to_owned(),
    };
    arguments.extend(tasks.iter().map(place));
    for file in fs::read_dir(&rows).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let [task, split, "jsonl"] = name.split('.').collect::<Vec<_>>()[..]
            && tasks.contains(&task)
        {
            arguments.extend(["--data".to_owned(), format!("{task}:{split}={}", path.display())]);
        }
    }
    let model = golden().join("model").display().to_string();
    arguments.extend(["--device", "cpu", "--model", &model].map(str::to_owned));
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments
}

fn eval(directory: &Path, tasks: &[&str], more: &[&str]) -> Run {
    ssa(directory, arguments(tasks, more))
}

fn results(run: &Run) -> Vec<Value> {
    let output: Value = serde_json::from_str(&run.stdout).unwrap();
    output["results"].as_array().unwrap().clone()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

/// Compares a document with the same of the harness.
fn check_document(expected: &Value, found: &Value, rolling: bool, place: &str) {
    let requests = found["requests"].as_array().unwrap();
    let expected_requests = expected["requests"].as_array().unwrap();
    assert_eq!(requests.len(), expected_requests.len(), "{place}");
    for ((request, expected_request), expected_answer) in
        requests.iter().zip(expected_requests).zip(expected["answers"].as_array().unwrap())
    {
        let mut prompt: Vec<&str> = Vec::new();
        prompt.extend(request["context"].as_str().filter(|_| !rolling));
        prompt.extend(request["continuation"].as_str());
        assert_eq!(prompt, strings(expected_request), "{place}");
        let answer = &request["answer"];
        match (expected_answer, answer) {
            (Value::String(expected), Value::String(answer)) => {
                assert_eq!(expected, answer, "{place}");
            }
            (Value::Array(expected), Value::Array(answer)) => {
                let [expected_value, value] =
                    [&expected[0], &answer[0]].map(|x| x.as_f64().unwrap());
                assert!((expected_value - value).abs() < TOLERANCE, "{place}: {expected_value}");
                assert_eq!(expected[1], answer[1], "{place}: greedy");
            }
            (expected, answer) => {
                let [expected, value] = [expected, answer].map(|x| x.as_f64().unwrap());
                assert!((expected - value).abs() < TOLERANCE, "{place}: {expected}, {value}");
            }
        }
    }
}

#[test]
fn answers_are_those_of_lm_evaluation_harness() {
    let directory = tempfile::tempdir().unwrap();
    for attention in ["full", "sparse"] {
        let text = fs::read(golden().join(format!("{attention}.json"))).unwrap();
        let expected: Vec<Value> = serde_json::from_slice(&text).unwrap();
        let mut by_shots: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
        for result in &expected {
            by_shots.entry(result["num_fewshot"].as_u64().unwrap()).or_default().push(result);
        }
        assert!(by_shots[&0].len() >= 9 && by_shots[&2].len() >= 6);
        for (shots, expected) in by_shots {
            let tasks: Vec<&str> =
                expected.iter().map(|result| result["task"].as_str().unwrap()).collect();
            let shots = shots.to_string();
            let mut more = vec!["--num-fewshot", &shots, "--attention", attention];
            more.extend(["--json", "--log-samples"]);
            if attention == "sparse" {
                more.extend(["--budget", "8x2"]);
            }
            let found = results(&eval(directory.path(), &tasks, &more).succeeds());
            assert_eq!(found.len(), expected.len());
            for (expected, found) in expected.iter().zip(&found) {
                assert_eq!(expected["task"], found["task"]);
                let place = format!("{attention}, {}, {shots} shots", expected["task"]);
                let documents = expected["documents"].as_array().unwrap();
                let samples = found["samples"].as_array().unwrap();
                assert_eq!(documents.len(), samples.len(), "{place}");
                let rolling = found["task"] == "wikitext";
                for (document, sample) in documents.iter().zip(samples) {
                    check_document(document, sample, rolling, &place);
                }
                for metric in found["metrics"].as_array().unwrap() {
                    let name = metric["metric"].as_str().unwrap();
                    let value = metric["value"].as_f64().unwrap();
                    let score = expected["scores"][name].as_f64().unwrap();
                    assert!(
                        (score / value - 1.0).abs() < 1e-4 || score == value,
                        "{place}: {name}"
                    );
                    let stderr = expected["scores"][format!("{name}_stderr")].as_f64();
                    if let Some(stderr) = stderr {
                        let found = metric["stderr"].as_f64().unwrap();
                        assert!((stderr - found).abs() <= 1e-4 * stderr, "{place}: {name}");
                    }
                }
            }
        }
    }
}

const ALL: [&str; 9] = [
    "wikitext",
    "piqa",
    "hellaswag",
    "arc_easy",
    "arc_challenge",
    "lambada_openai",
    "winogrande",
    "boolq",
    "own",
];

#[test]
fn answers_do_not_depend_on_the_batch_or_on_threads() {
    let directory = tempfile::tempdir().unwrap();
    let budget = ["--budget", "8x2,mass=0.9,1..4", "--json", "--log-samples"];
    let run = |more: &[&str]| {
        results(&eval(directory.path(), &ALL, &[&budget[..], more].concat()).succeeds())
    };
    let alone = run(&["--batch-tokens", "1", "--threads", "1"]);
    // Full attention and two budgets.
    assert_eq!(alone.len(), 3 * ALL.len());
    assert_eq!(alone, run(&["--batch-tokens", "100000", "--threads", "2"]));
    // The order of tasks does not matter either.
    let reversed: Vec<&str> = ALL.iter().rev().copied().collect();
    let run = eval(directory.path(), &reversed, &budget).succeeds();
    for result in results(&run) {
        assert!(alone.contains(&result), "{}", result["task"]);
    }
}

#[test]
fn a_killed_evaluation_resumes() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let rows = fs::read_to_string(golden().join("rows/piqa.validation.jsonl")).unwrap();
    fs::write(place.join("many.jsonl"), rows.repeat(300)).unwrap();
    let model = golden().join("model").display().to_string();
    let command_of = |output: &str| {
        ["eval", "piqa", "--data", "piqa=many.jsonl", "--model", &model, "--device", "cpu"]
            .into_iter()
            .chain(["--batch-tokens", "256", "--log-samples", "--output", output])
            .map(str::to_owned)
            .collect::<Vec<String>>()
    };
    ssa(place, command_of("whole.json")).succeeds();
    let partial = place.join("killed.json.partial");
    let mut child = command(place).args(command_of("killed.json")).spawn().unwrap();
    let start = Instant::now();
    loop {
        let lines = fs::read_to_string(&partial).map_or(0, |text| text.lines().count());
        if lines > 20 || start.elapsed() > Duration::from_secs(60) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(partial.is_file() && !place.join("killed.json").exists(), "killed in between");

    let other = [command_of("killed.json"), vec!["--limit".to_owned(), "3".to_owned()]].concat();
    ssa(place, other).fails(3, &["killed.json.partial: holds an unfinished evaluation", "hint:"]);
    let resumed = ssa(place, command_of("killed.json")).succeeds();
    assert!(resumed.stderr.contains("resuming killed.json.partial: "), "{}", resumed.stderr);
    assert!(!partial.exists());
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(place.join(name)).unwrap()).unwrap()
    };
    assert_eq!(read("whole.json")["results"], read("killed.json")["results"]);
    ssa(place, command_of("killed.json")).fails(2, &["killed.json exists", "--overwrite"]);
}

#[test]
fn long_contexts_are_cut_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let row =
        serde_json::json!({ "passage": "word ".repeat(2000), "question": "long", "label": 1 });
    fs::write(place.join("long.jsonl"), format!("{row}\n")).unwrap();
    let model = golden().join("model").display().to_string();
    let common = ["eval", "boolq", "--model", &model, "--device", "cpu", "--json"];
    let run = ssa(place, [&common[..], &["--data", "boolq=long.jsonl"]].concat()).succeeds();
    assert!(
        run.stderr.contains("warning: boolq: the context of 2 requests does not"),
        "{}",
        run.stderr
    );
    let result = &results(&run)[0];
    assert_eq!(result["truncated"]["requests"], 2);
    assert!(result["truncated"]["tokens"].as_u64().unwrap() > 1000);
}

#[test]
fn faults_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let model = golden().join("model").display().to_string();
    let with = |arguments: &[&str]| {
        let more = ["--model", &model, "--device", "cpu"];
        ssa(place, [&["eval"][..], arguments, &more].concat())
    };
    let rows = |name: &str, text: &str| fs::write(place.join(name), text).unwrap();
    rows("good.jsonl", "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": 0}\n");
    rows(
        "bad.jsonl",
        "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": 0}\n\n{\"goal\"\n",
    );
    rows("missing.jsonl", "{\"goal\": \"a\", \"sol1\": \"b\", \"label\": 0}\n");
    rows("label.jsonl", "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": 7}\n");
    rows("blank.jsonl", "\n\n");
    rows("half.yaml", "task: half\ntest_split: test\ndoc_to_text: q\n");
    let long =
        serde_json::json!({ "goal": "a", "sol1": "b ".repeat(900), "sol2": "c", "label": 0 });
    rows("long.jsonl", &format!("{long}\n"));

    with(&["pika"]).fails(2, &["unknown task `pika`", "did you mean `piqa`?"]);
    with(&["perplxity"]).fails(2, &["hint: did you mean `perplexity`?"]);
    with(&["piqa", "--output", "no/results.json"])
        .fails(3, &["cannot write no/results.json: there is no directory no", "create it"]);
    with(&["absent.yaml"]).fails(3, &["absent.yaml: cannot be read"]);
    with(&["half.yaml"]).fails(3, &["half.yaml: missing field `doc_to_target`"]);
    with(&["piqa", "piqa"]).fails(2, &["another task is named `piqa`"]);
    let piqa = |data: &str| with(&["piqa", "--data", data]);
    piqa("piqa=bad.jsonl").fails(3, &["bad.jsonl, line 3: "]);
    piqa("piqa=missing.jsonl").fails(
        3,
        &[
            "missing.jsonl, line 1: doc_to_choice",
            "undefined",
            "; the row has `goal`, `sol1`, `label`",
        ],
    );
    piqa("piqa=label.jsonl")
        .fails(3, &["label.jsonl, line 1: the target is none of the 2 choices"]);
    piqa("piqa=blank.jsonl")
        .fails(3, &["blank.jsonl: there are no rows", "--data piqa:validation"]);
    piqa("piqa=long.jsonl")
        .fails(3, &["long.jsonl, line 1: the continuation", "tokens, expected 1"]);
    piqa("boolq=good.jsonl").fails(2, &["--data boolq: there is no such task, only `piqa`"]);
    piqa("piqa").fails(2, &["expected TASK=PATH"]);
    let good = ["piqa", "--data", "piqa=good.jsonl"];
    let few = [&good[..], &["--data", "piqa:train=good.jsonl", "--num-fewshot", "3"]].concat();
    with(&few).fails(
        3,
        &["good.jsonl, line 1: ", "rows are needed to draw examples from", "in split `train"],
    );
    let full = [&good[..], &["--attention", "full", "--budget", "8x2"]].concat();
    with(&full).fails(2, &["--budget has no effect on full attention"]);
    with(&[]).fails(2, &["TASK"]);
    let table = with(&good).succeeds();
    for text in ["piqa", "acc_norm", "full", "1.0"] {
        assert!(table.stdout.contains(text), "{}", table.stdout);
    }
}
