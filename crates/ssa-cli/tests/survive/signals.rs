//! SIGTERM and SIGINT, and two processes in one directory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::process::{end, signal, steps_done, wait_for};
use crate::common::{ssa, workplace};
use crate::program::{
    ENDLESS, arguments, journal, leftovers, resume, start_and_wait, straight, unnamed, with,
};

#[test]
fn a_signal_saves_and_the_resumed_run_ends_the_same() {
    let directory = workplace();
    let expected = straight(directory.path());
    for (name, again) in [("TERM", true), ("INT", false)] {
        let run = directory.path().join(name);
        let child = start_and_wait(directory.path(), &arguments(name), name, 3);
        signal(child.id(), name);
        let stopped = end(child);
        assert_eq!(stopped.code, 5, "{}", stopped.stderr);
        let message =
            format!("of 24; everything is saved\nhint: resume with `ssa train --resume {name}`\n");
        assert!(stopped.stderr.contains("interrupted after step "), "{}", stopped.stderr);
        assert!(
            stopped.stderr.contains(&message) && !stopped.stderr.contains("error"),
            "{}",
            stopped.stderr
        );
        let done = steps_done(&run);
        assert!(run.join(format!("checkpoints/step-{done}")).is_dir());

        let arguments = if again { arguments(name) } else { resume(name).to_vec() };
        let going_on = ssa(directory.path(), arguments).succeeds();
        assert!(
            going_on.stderr.contains(&format!("resuming after step {done}")),
            "{}",
            going_on.stderr
        );
        assert_eq!(
            going_on.stderr.contains("holds an unfinished run"),
            again,
            "{}",
            going_on.stderr
        );
        leftovers(&run).must_equal(&expected);
        assert_eq!(journal(&run), ["started", "interrupted", "resumed", "trained"]);
    }
    // A finished run is not changed.
    let before = leftovers(&directory.path().join("TERM"));
    let finished = ssa(directory.path(), resume("TERM")).succeeds();
    assert!(finished.stderr.contains("this run is finished"), "{}", finished.stderr);
    ssa(directory.path(), arguments("TERM"))
        .fails(2, &["TERM holds a finished run", "--overwrite"]);
    leftovers(&directory.path().join("TERM")).must_equal(&before);
}

#[test]
fn the_same_command_resumes_an_unnamed_run() {
    let directory = workplace();
    let runs = || {
        let entries = fs::read_dir(directory.path().join("runs")).into_iter().flatten();
        let mut runs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        runs.sort();
        runs
    };
    let unnamed = unnamed();
    let child = crate::program::start(directory.path(), &unnamed);
    wait_for(|| runs().first().is_some_and(|run| steps_done(run) >= 3));
    signal(child.id(), "TERM");
    assert_eq!(end(child).code, 5);

    let going_on = ssa(directory.path(), &unnamed).succeeds();
    assert!(
        going_on.stderr.contains("holds an unfinished run of this configuration: resuming it"),
        "{}",
        going_on.stderr
    );
    let [run] = &runs()[..] else { panic!("it is the same run: {:?}", runs()) };
    leftovers(run).must_equal(&straight(directory.path()));
    // That run is finished, so the same command starts a new run, as do different settings.
    let other = with(&unnamed, &["--set", "run.seed=3"]);
    for (arguments, count) in [(&unnamed, 2), (&other, 3)] {
        let fresh = ssa(directory.path(), arguments).succeeds();
        assert!(!fresh.stderr.contains("resuming"), "{}", fresh.stderr);
        assert_eq!(runs().len(), count);
    }
}

/// Starts a run whose first step takes a minute, and returns once it is running.
fn start_slowly(directory: &Path, micro_batch_size: &str) -> Child {
    let micro_batch_size = format!("training.micro_batch_size={micro_batch_size}");
    let mut slow = vec!["training.recompute=true", &micro_batch_size];
    slow.extend(["training.batch_size=65536", "training.batch_size_start=65536"]);
    let slow: Vec<&str> = slow.into_iter().flat_map(|setting| ["--set", setting]).collect();
    let child = crate::program::start(directory, &with(&arguments("out"), &slow));
    let journal = directory.join("out/journal.jsonl");
    wait_for(|| fs::read_to_string(&journal).is_ok_and(|text| !text.is_empty()));
    sleep(Duration::from_millis(300));
    child
}

#[test]
fn a_signal_does_not_wait_for_a_long_step() {
    let directory = workplace();
    let child = start_slowly(directory.path(), "8");
    let begin = Instant::now();
    signal(child.id(), "TERM");
    let stopped = end(child);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(stopped.code, 5, "{}", stopped.stderr);
    assert!(stopped.stderr.contains("interrupted after step 0 of 24"), "{}", stopped.stderr);
    assert_eq!(journal(&directory.path().join("out")), ["started", "interrupted"]);
    // There is nothing to save yet, and nothing is lost.
    assert!(!directory.path().join("out/checkpoints").exists());
    let sizes = ["training.batch_size", "training.batch_size_start", "training.micro_batch_size"];
    let quick = sizes.map(|key| {
        ["--set".to_owned(), format!("{key}=2"), "--allow-change".to_owned(), key.to_owned()]
    });
    let quick = quick.as_flattened().iter().map(String::as_str).collect::<Vec<_>>();
    ssa(directory.path(), with(&resume("out"), &quick)).succeeds();
}

#[test]
fn a_second_signal_ends_the_program_immediately() {
    let directory = workplace();
    let child = start_slowly(directory.path(), "8192");
    let begin = Instant::now();
    // In such quick succession that nothing can be saved in between. The order of delivery is
    // undefined.
    let both = format!("kill -TERM {0}; kill -INT {0}", child.id());
    assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
    let stopped = end(child);
    assert!([130, 143].contains(&stopped.code), "{} {}", stopped.code, stopped.stderr);
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(journal(&directory.path().join("out")), ["started"]);
}

#[test]
fn two_programs_do_not_share_a_directory() {
    let directory = workplace();
    let endless = with(&arguments("out"), &ENDLESS);
    let mut child = start_and_wait(directory.path(), &endless, "out", 3);
    let holder = format!("in use by process {}", child.id());
    let parts = ["out is ", &holder, "out/run.lock", "wait for it or stop it"];
    ssa(directory.path(), &endless).fails(2, &parts);
    ssa(directory.path(), resume("out")).fails(2, &parts);
    ssa(directory.path(), with(&endless, &["--overwrite"])).fails(2, &parts);
    child.kill().unwrap();
    child.wait().unwrap();
    // The lock of a dead process does not count, although its file still exists.
    assert!(directory.path().join("out/run.lock").is_file());
    let steps = format!("training.steps={}", steps_done(&directory.path().join("out")) + 4);
    let shorter = ["--set", &steps, "--allow-change", "training.steps"];
    let child = crate::program::start(directory.path(), &with(&resume("out"), &shorter));
    end(child).succeeds();
}
