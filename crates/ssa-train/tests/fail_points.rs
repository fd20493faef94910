//! A program that dies at any step of saving a checkpoint leaves a run that can be continued, and
//! that ends as if nothing had happened.
//!
//! The test runs itself as a child: the test [`child`] does a run, and aborts where the environment
//! tells it to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use ssa_train::{
    Checkpoint, Existing, RunDir, SaveStep, Session, TrainConfig, TrainPlan, Trainer, initial_model,
};

/// The directory of the child's run.
const RUN: &str = "SSA_TEST_RUN";
/// The step of saving after which the child aborts, counted over all saves of the run.
const ABORT_AFTER: &str = "SSA_TEST_ABORT_AFTER";

/// Four steps, each saved; only the newest checkpoint stays.
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

/// Steps of saving in all: the first save has nothing old to remove.
const POINTS: usize = 8 + 3 * SaveStep::ALL.len();

/// Begins the run, or continues it.
fn train(path: &Path) {
    let mut config = TrainConfig::parse(CONFIG, "test", &[]).unwrap();
    config.data.paths = vec![path.with_file_name("text.txt")];
    let plan = TrainPlan::new(config).unwrap();
    let rows = plan.open_data().unwrap().train;
    let (run, checkpoint): (RunDir, Option<Checkpoint>) = if RunDir::holds_unfinished_run(path) {
        let run = RunDir::open(path).unwrap();
        let checkpoint = run.checkpoints().newest().unwrap();
        run.continue_with(plan.config(), checkpoint.as_ref(), &[]).unwrap();
        (run, checkpoint)
    } else {
        let run = RunDir::create_named(path, Existing::Refuse).unwrap();
        run.write_config(plan.config()).unwrap();
        (run, None)
    };
    let trainer = match checkpoint {
        Some(checkpoint) => Trainer::resume(plan, &checkpoint, rows).unwrap(),
        None => Trainer::new(plan.clone(), initial_model(&plan).unwrap(), rows).unwrap(),
    };
    let mut session = Session::new(&run, trainer).unwrap();
    if let Ok(point) = env::var(ABORT_AFTER) {
        let left = AtomicUsize::new(point.parse().unwrap());
        session.observe_saving(move |_| {
            if left.fetch_sub(1, Ordering::SeqCst) == 0 {
                std::process::abort();
            }
        });
    }
    session.by_ref().for_each(|event| {
        event.unwrap();
    });
    session.finish().unwrap();
}

/// Not a test of its own: the body of the child.
#[test]
fn child() {
    if let Ok(path) = env::var(RUN) {
        train(Path::new(&path));
    }
}

fn run_child(path: &Path, abort_after: Option<usize>) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--test-threads=1"]).env(RUN, path).env_remove(ABORT_AFTER);
    if let Some(point) = abort_after {
        command.env(ABORT_AFTER, point.to_string());
    }
    command.output().unwrap().status.success()
}

/// What must be the same in the end: weights and moments, and the metrics without their times.
fn result(path: &Path) -> (Vec<Vec<u8>>, Vec<String>) {
    let files = ["model.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"];
    let mut bytes =
        files.map(|file| fs::read(path.join("checkpoints/step-4").join(file)).unwrap()).to_vec();
    bytes.push(fs::read(path.join("checkpoint/model.safetensors")).unwrap());
    let metrics = fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    let timeless = |line: &str| line.split(",\"seconds\"").next().unwrap().to_owned();
    (bytes, metrics.lines().map(timeless).collect())
}

/// `latest`, if it is there, leads to a checkpoint that is whole.
fn check_latest(path: &Path) {
    let latest: PathBuf = path.join("checkpoints/latest");
    if latest.symlink_metadata().is_ok() {
        Checkpoint::open(&latest).unwrap();
    }
}

#[test]
fn every_step_of_saving_survives_the_death_of_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let text = "the quick brown fox jumps over the lazy dog and the sun and the moon. ".repeat(20);
    fs::write(directory.path().join("text.txt"), text).unwrap();
    let at = |name: &str| directory.path().join(name);
    assert!(run_child(&at("straight"), None));
    let expected = result(&at("straight"));
    assert_eq!(expected.1.len(), 4);
    for point in 0..POINTS {
        let path = at(&format!("point-{point}"));
        assert!(!run_child(&path, Some(point)), "point {point} is one");
        check_latest(&path);
        assert!(run_child(&path, None), "the run continues after point {point}");
        assert!(result(&path) == expected, "point {point}");
        check_latest(&path);
        let names = fs::read_dir(path.join("checkpoints")).unwrap().count();
        assert_eq!(names, 2, "nothing is left over after point {point}");
    }
    assert!(run_child(&at("whole"), Some(POINTS)), "there is no further point");
    // Dying again and again, each time at a later step of a save, gets there too.
    let path = at("often");
    let deaths = (0..POINTS).take_while(|point| !run_child(&path, Some(point % 8))).count();
    assert!(deaths > 8, "{deaths}");
    while !run_child(&path, None) {}
    assert!(result(&path) == expected);
}
