//! Programs that run while a test goes on.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Run;

/// Starts a command without waiting; [`end`] gives its output.
pub(crate) fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of the program.
pub(crate) fn end(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().expect("the program ends by itself"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Sends a signal to a process by its name.
pub(crate) fn signal(process: u32, name: &str) {
    let kill = format!("kill -{name} {process}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// Waits for a condition that takes at most seconds.
#[track_caller]
pub(crate) fn wait_for(happens: impl Fn() -> bool) {
    let start = Instant::now();
    while !happens() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not happen");
        sleep(Duration::from_millis(2));
    }
}

/// Steps in the log of a run.
pub(crate) fn steps_done(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// The log of a run without times.
pub(crate) fn metrics_without_times(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let timeless = |line: &str| {
        let mut step: Value = serde_json::from_str(line).unwrap();
        let fields = step.as_object_mut().unwrap();
        for time in ["seconds", "tokens_per_second", "tflops"] {
            assert!(fields.remove(time).is_some(), "{time}");
        }
        step
    };
    text.lines().map(timeless).collect()
}
