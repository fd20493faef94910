//! A run of the program that can be stopped, and its results.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use serde_json::Value;

use crate::common::process::{metrics_without_times, spawn, steps_done, wait_for};
use crate::common::{command, ssa};

/// Arguments of a run of 24 steps with a checkpoint every two steps, in the directory `run`.
pub(crate) fn arguments(run: &str) -> Vec<&str> {
    [&unnamed()[..], &["--run-dir", run]].concat()
}

/// The same in a directory that the program names. The run validates, so the best weights must
/// survive too, and all steps differ: the batch grows, and the learning rate rises, stays and
/// falls.
pub(crate) fn unnamed() -> Vec<&'static str> {
    let settings = [
        "training.steps=24",
        "training.batch_size=4",
        "training.batch_size_start=2",
        "training.batch_ramp_steps=16",
        "training.micro_batch_size=2",
        "optimizer.schedule=wsd",
        "objective.z_loss=1e-4",
        "checkpoint.every_steps=2",
        "monitoring.validate_every=5",
        "monitoring.probe_every=7",
        "monitoring.probe_tokens=64",
        "monitoring.validation_tokens=64",
    ];
    let mut arguments = vec!["train", "tiny.toml", "--threads", "1", "--no-eval"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    arguments
}

/// The arguments that resume a run.
pub(crate) fn resume(run: &str) -> [&str; 6] {
    ["train", "--threads", "1", "--resume", run, "--no-eval"]
}

/// The same with more arguments.
pub(crate) fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

/// Too many steps to finish during a test.
pub(crate) const ENDLESS: [&str; 2] = ["--set", "training.steps=1000000"];

/// Starts the program without waiting.
pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Child {
    let mut command = command(directory);
    command.args(arguments);
    spawn(command)
}

/// Starts the program and waits until it has done this many steps.
pub(crate) fn start_and_wait(
    directory: &Path,
    arguments: &[&str],
    run: &str,
    steps: usize,
) -> Child {
    let child = start(directory, arguments);
    wait_for(|| steps_done(&directory.join(run)) >= steps);
    child
}

/// The results that must be equal for interrupted and uninterrupted runs.
#[derive(PartialEq)]
pub(crate) struct Leftovers {
    files: Vec<(PathBuf, Vec<u8>)>,
    metrics: Vec<Value>,
}

/// The results of a finished run, without times.
pub(crate) fn leftovers(run: &Path) -> Leftovers {
    let files = [
        "checkpoint/config.json",
        "checkpoint/model.safetensors",
        "checkpoints/step-24/model.safetensors",
        "checkpoints/step-24/optimizer.safetensors",
        "checkpoints/step-24/state.json",
        "best/model.safetensors",
        "best/best.json",
        "config.toml",
    ];
    let files = files.map(|file| (file.into(), fs::read(run.join(file)).unwrap())).to_vec();
    Leftovers { files, metrics: metrics_without_times(run) }
}

impl Leftovers {
    /// Fails with the first difference.
    #[track_caller]
    pub(crate) fn must_equal(&self, expected: &Self) {
        for ((file, ours), (_, theirs)) in self.files.iter().zip(&expected.files) {
            assert!(ours == theirs, "{} differs", file.display());
        }
        assert_eq!(self.metrics.len(), expected.metrics.len());
        for (ours, theirs) in self.metrics.iter().zip(&expected.metrics) {
            assert_eq!(ours, theirs);
        }
    }
}

/// A run without interruption.
pub(crate) fn straight(directory: &Path) -> Leftovers {
    ssa(directory, arguments("straight")).succeeds();
    leftovers(&directory.join("straight"))
}

/// Names in the journal of a run.
pub(crate) fn journal(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("journal.jsonl")).unwrap();
    let name =
        |line| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned();
    text.lines().map(name).collect()
}
