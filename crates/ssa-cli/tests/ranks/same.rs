//! The number of ranks changes nothing.

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
