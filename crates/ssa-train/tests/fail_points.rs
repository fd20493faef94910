//! After a crash or a disk error at any file operation, a run can be resumed and ends as if nothing
//! had happened.
//!
//! The test runs itself as a child process: the test [`child`] performs a run, and stops or fails
//! at the operation given in the environment.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ssa_files::{Operation, intercept};
use ssa_train::{
    Checkpoint, Existing, RunDir, Session, TrainConfig, TrainError, TrainPlan, Trainer,
    initial_model,
};

/// The directory of the child's run.
const RUN: &str = "SSA_TEST_RUN";
/// The fault of the child: `MODE POINT`.
const FAULT: &str = "SSA_TEST_FAULT";
/// The file to which a counting child writes the number of points.
const COUNT: &str = "points";

/// Four steps with a checkpoint each; only the newest is kept.
const CONFIG: &str = "
    [model]
    hidden_size = 16
    intermediate_size = 16
    num_hidden_layers = 1
    num_attention_heads = 2
    head_dim = 8
    block_size = 4
    block_counts = 2
    [data]
    sequence_length = 32
    [training]
    steps = 4
    batch_size = 2
    [checkpoint]
    every_steps = 1
    keep_last = 1
    [evaluation]
    budgets = [\"4x2\"]";

/// The maximum number of crashes of a run, if each is at a later point of a save.
const MOST_ATTEMPTS: usize = 200;

/// The fault at a point.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The process dies before the operation.
    Abort,
    /// The operation fails once.
    Error,
    /// None: points are only counted.
    None,
}

impl Fault {
    /// Whether an operation is a point. A crash before a sync has the same result as a crash before
    /// the next operation.
    fn counts(self, operation: Operation) -> bool {
        let syncs = matches!(operation, Operation::Sync | Operation::SyncDirectory);
        self == Self::Error || !syncs
    }
}

/// Starts the run, or resumes it.
fn train(path: &Path) -> Result<(), TrainError> {
    let mut config = TrainConfig::parse(CONFIG, "test", &[])?;
    config.data.paths = vec![path.with_file_name("text.txt")];
    let plan = TrainPlan::new(config)?;
    let rows = plan.open_data()?.train;
    let (run, checkpoint): (RunDir, Option<Checkpoint>) = if RunDir::holds_unfinished_run(path) {
        let run = RunDir::open(path)?;
        let checkpoint = run.checkpoints().newest()?;
        run.continue_with(plan.config(), checkpoint.as_ref(), &[])?;
        (run, checkpoint)
    } else {
        let run = RunDir::create_named(path, Existing::Refuse)?;
        run.write_config(plan.config())?;
        (run, None)
    };
    let trainer = match checkpoint {
        Some(checkpoint) => Trainer::resume(plan, &checkpoint, rows)?,
        None => Trainer::new(plan.clone(), initial_model(&plan)?, rows)?,
    };
    let mut session = Session::new(&run, trainer)?;
    for event in session.by_ref() {
        event?;
    }
    session.finish().map(drop)
}

/// Installs the fault from the environment into every file operation of the run.
fn arm(run: PathBuf) {
    let fault = env::var(FAULT).unwrap();
    let (mode, point) = fault.split_once(' ').unwrap();
    let point: usize = point.parse().unwrap();
    let mode = match mode {
        "abort" => Fault::Abort,
        "error" => Fault::Error,
        _ => Fault::None,
    };
    let passed = AtomicUsize::new(0);
    intercept(move |operation, path| {
        if !path.starts_with(&run) || !mode.counts(operation) {
            return Ok(());
        }
        let is_point = passed.fetch_add(1, Ordering::SeqCst) == point;
        match mode {
            Fault::Abort if is_point => std::process::abort(),
            Fault::Error if is_point => Err(io::Error::other("injected")),
            _ => Ok(()),
        }
    });
}

/// Counts the points of both modes into a file next to the run.
fn count(run: PathBuf) {
    let file = run.with_file_name(COUNT);
    let passed = [Fault::Abort, Fault::Error].map(|mode| (mode, AtomicUsize::new(0)));
    intercept(move |operation, path| {
        if path.starts_with(&run) {
            for (mode, passed) in &passed {
                passed.fetch_add(usize::from(mode.counts(operation)), Ordering::SeqCst);
            }
            let counts = passed.each_ref().map(|(_, count)| count.load(Ordering::SeqCst));
            fs::write(&file, format!("{} {}", counts[0], counts[1]))?;
        }
        Ok(())
    });
}

/// Not a test of its own: the body of the child.
#[test]
fn child() {
    let Ok(path) = env::var(RUN) else { return };
    let path = PathBuf::from(path);
    match env::var(FAULT).as_deref() {
        Ok("count") => count(path.clone()),
        Ok(_) => arm(path.clone()),
        Err(_) => {}
    }
    if let Err(error) = train(&path) {
        println!("{error}");
        std::process::exit(3);
    }
}

fn run_child(path: &Path, fault: Option<&str>) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--test-threads=1", "--nocapture"]);
    command.env(RUN, path).env_remove(FAULT);
    if let Some(fault) = fault {
        command.env(FAULT, fault);
    }
    command.output().unwrap()
}

/// The results that must be equal.
#[derive(PartialEq)]
struct Outcome {
    /// Weights, moments and state.
    files: Vec<Vec<u8>>,
    /// The metrics without times.
    metrics: Vec<String>,
}

fn outcome(path: &Path) -> Outcome {
    let names = ["model.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"];
    let mut files: Vec<Vec<u8>> =
        names.map(|name| fs::read(path.join("checkpoints/step-4").join(name)).unwrap()).to_vec();
    files.push(fs::read(path.join("checkpoint/model.safetensors")).unwrap());
    let text = fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    let timeless = |line: &str| line.split(",\"seconds\"").next().unwrap().to_owned();
    Outcome { files, metrics: text.lines().map(timeless).collect() }
}

/// Checks that `latest`, if it exists, points to a complete checkpoint.
fn check_latest(path: &Path) {
    let latest: PathBuf = path.join("checkpoints/latest");
    if latest.symlink_metadata().is_ok() {
        Checkpoint::open(&latest).unwrap();
    }
}

/// A directory for runs, with the text, and a run without faults.
struct FaultFree {
    directory: tempfile::TempDir,
    outcome: Outcome,
    /// Number of points at which it can crash, and at which it can fail.
    points: [usize; 2],
}

fn fault_free() -> FaultFree {
    let directory = tempfile::tempdir().unwrap();
    let text = "the quick brown fox jumps over the lazy dog and the sun and the moon. ".repeat(20);
    fs::write(directory.path().join("text.txt"), text).unwrap();
    let uninterrupted = directory.path().join("uninterrupted");
    assert!(run_child(&uninterrupted, Some("count")).status.success());
    let outcome = outcome(&uninterrupted);
    assert_eq!(outcome.metrics.len(), 4);
    let counts = fs::read_to_string(directory.path().join(COUNT)).unwrap();
    let (abort, error) = counts.split_once(' ').unwrap();
    let points = [abort, error].map(|count| count.parse().unwrap());
    FaultFree { directory, outcome, points }
}

/// Runs every point, on two threads.
fn for_every_point(points: usize, check: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::SeqCst) {
                        point if point < points => check(point),
                        _ => break,
                    }
                }
            });
        }
    });
}

/// Checks that the run can be resumed after a fault and ends as if there had been none.
fn check_resumed(path: &Path, expected: &Outcome, point: usize) {
    check_latest(path);
    assert!(run_child(path, None).status.success(), "the run resumes after point {point}");
    assert!(outcome(path) == *expected, "point {point}");
    check_latest(path);
    for (directory, entries) in [("checkpoints", 2), ("checkpoint", 4), ("", 7)] {
        let names: Vec<_> = fs::read_dir(path.join(directory)).unwrap().collect();
        assert_eq!(names.len(), entries, "nothing is left over after point {point}: {names:?}");
    }
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn every_operation_survives_the_death_of_the_process() {
    let FaultFree { directory, outcome: expected, points: [points, _] } = fault_free();
    let at = |name: &str| directory.path().join(name);
    assert!(points >= 38, "{points}");
    for_every_point(points, |point| {
        let path = at(&format!("point-{point}"));
        let status = run_child(&path, Some(&format!("abort {point}"))).status;
        assert!(!status.success(), "point {point} is one");
        check_resumed(&path, &expected, point);
    });
    let beyond = run_child(&at("whole"), Some(&format!("abort {points}")));
    assert!(beyond.status.success(), "there is no further point");
    // Repeated crashes, each at a later point of a save, lead to the same result.
    let path = at("often");
    let dies = |point: &usize| !run_child(&path, Some(&format!("abort {point}"))).status.success();
    let deaths = (0..MOST_ATTEMPTS).take_while(dies).count();
    assert!((9..MOST_ATTEMPTS).contains(&deaths), "{deaths}");
    assert!(outcome(&path) == expected);
    println!("{points} points");
}

#[test]
fn every_operation_may_fail() {
    let FaultFree { directory, outcome: expected, points: [_, points] } = fault_free();
    for_every_point(points, |point| {
        let path = directory.path().join(format!("point-{point}"));
        let output = run_child(&path, Some(&format!("error {point}")));
        if output.status.success() {
            // A failed unlock or removal at the end of a process.
            assert!(outcome(&path) == expected, "point {point}");
        } else {
            let text = String::from_utf8(output.stdout).unwrap();
            let place = path.display().to_string();
            assert_eq!(output.status.code(), Some(3), "point {point}: {text}");
            assert!(text.contains(&place) && text.contains("injected"), "point {point}: {text}");
        }
        check_resumed(&path, &expected, point);
    });
    println!("{points} points");
}
