//! `kill -9` at random times.

use std::env;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ssa_testkit::Random;

use crate::common::{ssa, workplace};
use crate::program::{Leftovers, arguments, journal, leftovers, start, straight};

/// The number of kills: a few by default, or as set in the environment.
fn kills() -> usize {
    env::var("SSA_TEST_KILLS").map_or(40, |count| count.parse().unwrap())
}

/// Counts of what happened.
#[derive(Debug, Default)]
struct Tally {
    runs: usize,
    kills: usize,
    /// Kills before the first checkpoint, after the last step, and during a save.
    early: usize,
    late: usize,
    saving: usize,
}

#[test]
fn runs_killed_at_random_end_like_a_straight_one() {
    let directory = workplace();
    let begin = Instant::now();
    let expected = straight(directory.path());
    let length = begin.elapsed();
    // Kills are spread over this window, which adapts to the current speed of the machine.
    let mut window = length;
    let mut random = Random::new(u64::from(std::process::id()));
    let mut tally = Tally::default();
    while tally.kills < kills() {
        let name = format!("run-{}", tally.runs);
        kill_until_done(directory.path(), &name, &mut window, &mut random, &mut tally);
        check(&directory.path().join(&name), &expected);
        fs::remove_dir_all(directory.path().join(&name)).unwrap();
        tally.runs += 1;
    }
    println!("{tally:?} in {:.0?}; a straight run takes {length:.2?}", begin.elapsed());
}

/// Repeats the same command, alternating between one and two threads, and kills it after a random
/// fraction of a run's duration, until it ends.
fn kill_until_done(
    directory: &Path,
    name: &str,
    window: &mut Duration,
    random: &mut Random,
    tally: &mut Tally,
) {
    let run = directory.join(name);
    loop {
        if tally.kills >= kills() {
            ssa(directory, arguments(name)).succeeds();
            return;
        }
        let mut arguments = arguments(name);
        let threads = arguments.iter().position(|argument| *argument == "--threads").unwrap();
        arguments[threads + 1] = ["1", "2"][tally.kills % 2];
        let mut child = start(directory, &arguments);
        sleep(window.mul_f64(f64::from(random.below(1000, 1)[0]) / 1000.0));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.code().is_some() {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "the program fails by itself:\n{text}");
            *window = window.mul_f64(0.7);
            return;
        }
        *window = window.mul_f64(1.1);
        tally.kills += 1;
        if run.join("summary.json").exists() {
            // All steps were already done.
            return;
        }
        let names: Vec<String> = fs::read_dir(run.join("checkpoints")).map_or(vec![], |entries| {
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        });
        tally.saving += usize::from(names.iter().any(|name| name.ends_with(".tmp")));
        tally.early += usize::from(!names.iter().any(|name| name == "latest"));
        tally.late += usize::from(names.iter().any(|name| name == "step-24"));
        check_latest(&run);
    }
}

/// Checks with `sha256sum` that `latest` points to a checkpoint with correct checksums.
fn check_latest(run: &Path) {
    let latest = run.join("checkpoints/latest");
    if latest.symlink_metadata().is_ok() {
        let mut check = std::process::Command::new("sha256sum");
        let output = check
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(&latest)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

fn check(run: &Path, expected: &Leftovers) {
    leftovers(run).must_equal(expected);
    check_latest(run);
    let journal = journal(run);
    assert_eq!((journal[0].as_str(), journal.last().unwrap().as_str()), ("started", "trained"));
    let left: Vec<_> = fs::read_dir(run.join("checkpoints")).unwrap().collect();
    assert_eq!(left.len(), 3, "two checkpoints and latest: {left:?}");
}
