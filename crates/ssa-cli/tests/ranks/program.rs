//! Runs on ranks, and what they leave.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;

use serde_json::Value;

use crate::common::process::{end, metrics_without_times, spawn, steps_done, wait_for};
use crate::common::{Run, command};

/// Arguments of a run with four groups in the directory `run`. The batch grows, so the number of
/// micro-batches of a group does too, and one parameter has more than one block of elements.
pub(crate) fn arguments(run: &str, steps: usize, ranks: usize) -> Vec<String> {
    let settings = [
        &format!("training.steps={steps}"),
        "training.groups=4",
        "training.batch_size=8",
        "training.batch_size_start=4",
        "training.batch_ramp_steps=4",
        "training.micro_batch_size=1",
        "model.intermediate_size=2304",
        "checkpoint.every_steps=5",
        "monitoring.validate_every=5",
        "monitoring.validation_tokens=64",
    ];
    let mut arguments = vec!["train", "tiny.toml", "--no-eval", "--run-dir", run];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let ranks = ranks.to_string();
    arguments.extend(["--ranks", &ranks]);
    arguments.into_iter().map(str::to_owned).collect()
}

/// Starts the program without waiting.
pub(crate) fn start(directory: &Path, arguments: &[String]) -> Child {
    start_with(directory, arguments, &[])
}

/// Starts the program with variables of a launcher.
pub(crate) fn start_with(
    directory: &Path,
    arguments: &[String],
    variables: &[(&str, String)],
) -> Child {
    let mut command = command(directory);
    command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
    spawn(command)
}

pub(crate) fn run(directory: &Path, arguments: &[String]) -> Run {
    end(start(directory, arguments))
}

/// Waits until a run has done this many steps.
pub(crate) fn wait_for_steps(run: &Path, steps: usize) {
    wait_for(|| steps_done(run) >= steps);
}

/// The processes that a process has started.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// Whether a process runs. One that has ended but whose parent has not asked for it does not.
pub(crate) fn is_alive(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|text| !text.rsplit(") ").next().unwrap().starts_with('Z'))
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What runs on any number of ranks have in common: model, moments, best weights and metrics
/// without times.
#[derive(PartialEq)]
pub(crate) struct Results {
    files: Vec<Vec<u8>>,
    metrics: Vec<Value>,
}

impl Results {
    pub(crate) fn of(run: &Path, steps: usize) -> Self {
        let files = [
            "checkpoint/model.safetensors".to_owned(),
            format!("checkpoints/step-{steps}/optimizer.safetensors"),
            format!("checkpoints/step-{steps}/state.json"),
            "best/model.safetensors".to_owned(),
        ];
        let mut metrics = metrics_without_times(run);
        for step in &mut metrics {
            step.as_object_mut().unwrap().remove("rank_seconds");
        }
        Self {
            files: files.iter().map(|file| fs::read(run.join(file)).unwrap()).collect(),
            metrics,
        }
    }

    /// Fails with the first difference.
    #[track_caller]
    pub(crate) fn must_equal(&self, expected: &Self) {
        assert_eq!(self.metrics.len(), expected.metrics.len());
        for (ours, theirs) in self.metrics.iter().zip(&expected.metrics) {
            assert_eq!(ours, theirs);
        }
        assert!(self.files == expected.files, "weights or moments differ");
    }
}
