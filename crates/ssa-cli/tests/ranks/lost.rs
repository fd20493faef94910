//! Ranks that are killed, stopped or fail.

use std::time::{Duration, Instant};

use crate::common::process::{end, signal};
use crate::common::workplace;
use crate::program::{Results, arguments, children, is_alive, run, start, wait_for_steps};

/// Enough steps to be interrupted in.
const STEPS: usize = 150;

/// The time in which all ranks end when one is lost.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn when_a_rank_is_killed_all_end_and_the_same_command_continues() {
    let directory = workplace();
    let path = directory.path().join("run");
    run(directory.path(), &arguments("straight", STEPS, 1)).succeeds();
    for (steps, killed) in [(11, 0), (31, 2)] {
        let process = start(directory.path(), &arguments("run", STEPS, 4));
        wait_for_steps(&path, steps);
        let others = children(process.id());
        assert_eq!(others.len(), 3);
        signal(others[killed], "KILL");
        let start = Instant::now();
        let ended = end(process).fails(6, &["was lost in step", "run the same command again"]);
        assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
        let named = format!("error: rank {} on ", killed + 1);
        assert!(ended.stderr.contains(&named), "{}", ended.stderr);
    }
    // Rank 0 itself.
    let process = start(directory.path(), &arguments("run", STEPS, 2));
    wait_for_steps(&path, 61);
    let other = children(process.id())[0];
    signal(process.id(), "KILL");
    let output = process.wait_with_output().unwrap();
    assert!(output.status.code().is_none());
    let begin = Instant::now();
    while is_alive(other) {
        assert!(begin.elapsed() < LIMIT, "the other rank does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    run(directory.path(), &arguments("run", STEPS, 2)).succeeds();
    Results::of(&path, STEPS).must_equal(&Results::of(&directory.path().join("straight"), STEPS));
}

#[test]
fn when_a_rank_is_stopped_all_end() {
    let directory = workplace();
    let process = start(directory.path(), &arguments("run", 1_000_000, 2));
    wait_for_steps(&directory.path().join("run"), 3);
    let other = children(process.id())[0];
    let start = Instant::now();
    signal(other, "STOP");
    let ended = end(process).fails(6, &["error: rank 1 on ", "was lost in step"]);
    assert!(ended.stderr.contains("it sent no heartbeat for 20 s"), "{}", ended.stderr);
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    assert!(!is_alive(other));
}
