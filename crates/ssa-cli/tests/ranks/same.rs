//! The number of ranks changes nothing.

use std::fs;

use serde_json::Value;

use crate::common::process::{end, signal};
use crate::common::workplace;
use crate::program::{Results, arguments, children, run, start, wait_for_steps};

#[test]
fn one_two_and_four_processes_give_the_same_bits() {
    let directory = workplace();
    let results = |name: &str, ranks: usize| {
        let ended = run(directory.path(), &arguments(name, 12, ranks)).succeeds();
        assert_eq!(ended.stderr.contains("ranks: "), ranks > 1, "{}", ended.stderr);
        Results::of(&directory.path().join(name), 12)
    };
    let one = results("one", 1);
    for (name, ranks) in [("two", 2), ("four", 4), ("again", 4)] {
        results(name, ranks).must_equal(&one);
    }
}

#[test]
fn all_ranks_measure_and_find_the_same() {
    let directory = workplace();
    let results = |name: &str, ranks: usize| {
        let mut arguments = arguments(name, 6, ranks);
        arguments.retain(|argument| argument != "--no-eval");
        let settings = ["evaluation.batch_size=1", "monitoring.probe_every=3"];
        arguments.extend(settings.iter().flat_map(|set| ["--set", set]).map(str::to_owned));
        run(directory.path(), &arguments).succeeds();
        let run = directory.path().join(name);
        let summary = fs::read(run.join("summary.json")).unwrap();
        let summary: Value = serde_json::from_slice(&summary).unwrap();
        assert!(summary["analysis"]["hidden_states"].is_array(), "{summary}");
        let probes = Results::of(&run, 6);
        (probes, summary["evaluation"].clone(), summary["analysis"].clone())
    };
    let one = results("one", 1);
    for (name, ranks) in [("two", 2), ("four", 4)] {
        let (probes, evaluation, analysis) = results(name, ranks);
        probes.must_equal(&one.0);
        assert_eq!((evaluation, analysis), (one.1.clone(), one.2.clone()), "{ranks} ranks");
    }
}

#[test]
fn an_interrupted_run_continues_on_any_number_of_ranks() {
    const STEPS: usize = 120;
    let directory = workplace();
    run(directory.path(), &arguments("straight", STEPS, 1)).succeeds();
    let path = directory.path().join("run");
    for (ranks, steps) in [(2, 11), (1, 33)] {
        let process = start(directory.path(), &arguments("run", STEPS, ranks));
        wait_for_steps(&path, steps);
        // Any rank may get the signal.
        let target = children(process.id()).first().copied().unwrap_or(process.id());
        signal(target, "TERM");
        let ended = end(process);
        assert_eq!(ended.code, 5, "{}", ended.stderr);
        assert!(ended.stderr.contains("everything is saved"), "{}", ended.stderr);
    }
    run(directory.path(), &arguments("run", STEPS, 4)).succeeds();
    Results::of(&path, STEPS).must_equal(&Results::of(&directory.path().join("straight"), STEPS));
}
