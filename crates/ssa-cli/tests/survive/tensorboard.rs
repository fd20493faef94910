//! TensorBoard reads the logs of a killed and resumed run.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{ssa, workplace};
use crate::program::{arguments, resume, start_and_wait};

/// Prints every scalar by its tag: steps and values as TensorBoard shows them. Exit code 77 means
/// no TensorBoard.
const SCRIPT: &str = "
import json, sys
try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    sys.exit(77)
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0}).Reload()
tags = events.Tags()['scalars']
points = {tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in tags}
print(json.dumps(points))
";

type Scalars = BTreeMap<String, Vec<(u64, f64)>>;

/// The scalars that TensorBoard shows for a directory; `None` without a Python with TensorBoard.
/// The Python in `SSA_PYTHON` must have it.
fn scalars(directory: &Path) -> Option<Scalars> {
    let named = env::var("SSA_PYTHON").ok();
    let python = named.as_deref().unwrap_or("python3");
    let output = Command::new(python).args(["-c", SCRIPT]).arg(directory).output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) => output,
        other => {
            assert!(named.is_none(), "{python} has no TensorBoard: {other:?}");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn tensorboard_shows_every_step_of_a_killed_run_once() {
    let directory = workplace();
    let run = directory.path().join("out");
    let mut child = start_and_wait(directory.path(), &arguments("out"), "out", 11);
    child.kill().unwrap();
    child.wait().unwrap();
    ssa(directory.path(), resume("out")).succeeds();
    assert_eq!(
        fs::read_dir(run.join("tensorboard")).unwrap().count(),
        2,
        "a file for each session"
    );
    let Some(scalars) = scalars(&run.join("tensorboard")) else {
        println!("skipped: no Python with TensorBoard");
        return;
    };
    let points: usize = scalars.values().map(Vec::len).sum();
    println!("{} tags, {points} points: {:?}", scalars.len(), scalars.keys());
    for (tag, series) in &scalars {
        let steps: Vec<u64> = series.iter().map(|(step, _)| *step).collect();
        match tag.split_once(['/', '_']).unwrap().0 {
            "probe" => assert_eq!(steps, [7, 14, 21, 24], "{tag}"),
            "validation" => assert_eq!(steps, [5, 10, 15, 20, 24], "{tag}"),
            _ => assert_eq!(steps, (1..=24).collect::<Vec<_>>(), "{tag}"),
        }
    }
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    for (line, (step, shown)) in metrics.lines().zip(&scalars["train/loss"]) {
        let logged: Value = serde_json::from_str(line).unwrap();
        assert_eq!(logged["loss"].as_f64().unwrap() as f32, *shown as f32, "step {step}");
    }
}
