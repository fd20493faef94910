use tempfile::tempdir;

use super::*;
use crate::step_log::{METRICS, StepLog};

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A run directory with everything a run writes.
fn finished_run(path: &Path) -> RunDir {
    let run = RunDir::create_named(path, Existing::Refuse).unwrap();
    run.write_config(&TrainConfig::default()).unwrap();
    StepLog::open(run.path(), 0, false).unwrap();
    fs::create_dir(run.checkpoint()).unwrap();
    let checkpoint = run.checkpoints().path(7);
    fs::create_dir_all(&checkpoint).unwrap();
    fs::write(checkpoint.join("state.json"), "x").unwrap();
    fs::create_dir_all(run.checkpoints().directory().join("step-8.tmp")).unwrap();
    for file in [
        "journal.jsonl",
        "checkpoint/config.json",
        "checkpoint/configuration_ssa.py",
        "checkpoint/model.safetensors",
        "checkpoint/modeling_ssa.py",
        "checkpoint/tokenizer.json",
        "summary.json",
        "report.html",
    ] {
        fs::write(path.join(file), "x").unwrap();
    }
    run
}

#[test]
fn names_hold_the_time_and_never_collide() {
    let directory = tempdir().unwrap();
    let parent = directory.path().join("runs");
    let start = Timestamp::from_second(1_769_874_302).unwrap();
    let runs: Vec<RunDir> =
        (0..3).map(|_| RunDir::create_at(&parent, "demo", start).unwrap()).collect();
    let paths: Vec<_> =
        runs.iter().map(|run| run.path().file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(paths, ["demo-20260131-154502", "demo-20260131-154502-2", "demo-20260131-154502-3"]);
    assert_eq!(names(&parent), paths);
    assert!(RunDir::create(&parent, "demo").unwrap().path().is_dir());
}

#[test]
fn the_configuration_in_a_run_is_usable_as_input() {
    let directory = tempdir().unwrap();
    let run = RunDir::create_named(&directory.path().join("a/b"), Existing::Refuse).unwrap();
    let mut config = TrainConfig::default();
    config.training.steps = 17;
    run.write_config(&config).unwrap();
    assert_eq!(TrainConfig::load(&run.path().join(CONFIG), &[]).unwrap(), config);
    assert_eq!(names(run.path()), [CONFIG, LOCK]);
}

#[test]
fn an_existing_directory_is_refused() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("run");
    finished_run(&path);
    let before = names(&path);
    let message = RunDir::create_named(&path, Existing::Refuse).unwrap_err().to_string();
    assert!(message.contains("run holds a finished run\nhint: name another"), "{message}");
    assert!(message.contains("--overwrite"), "{message}");
    let longer = format!("ssa train --resume {} --set training.steps=N", path.display());
    assert!(message.contains(&longer), "{message}");
    assert_eq!(names(&path), before);

    fs::remove_file(path.join(SUMMARY)).unwrap();
    let before = names(&path);
    let message = RunDir::create_named(&path, Existing::Refuse).unwrap_err().to_string();
    let expected = "run exists\nhint: name another run directory, or pass --overwrite to replace \
        the run in it";
    assert!(message.ends_with(expected), "{message}");
    assert_eq!(names(&path), before);
}

#[test]
fn overwriting_removes_the_run_and_nothing_else() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("run");
    finished_run(&path);
    RunDir::create_named(&path, Existing::Replace).unwrap();
    assert_eq!(names(&path), [LOCK]);

    finished_run(&path);
    fs::write(path.join("notes.txt"), "mine").unwrap();
    fs::write(path.join("checkpoint/notes.txt"), "mine").unwrap();
    let run = RunDir::create_named(&path, Existing::Replace).unwrap();
    assert_eq!(names(&path), [CHECKPOINT, "notes.txt", LOCK]);
    assert_eq!(names(&run.checkpoint()), ["notes.txt"]);
}

#[test]
fn a_run_is_opened_by_one_process_and_cleared_of_partial_files() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("run");
    let message = RunDir::open(&path).unwrap_err().to_string();
    assert!(message.ends_with("no such directory\nhint: name the directory of a run"), "{message}");
    drop(finished_run(&path));
    assert!(!RunDir::holds_unfinished_run(&path));
    let run = RunDir::open(&path).unwrap();
    assert_eq!(names(run.checkpoints().directory()), ["step-7"]);
    assert!(RunDir::summary_of(run.path()).exists());
    run.reopen().unwrap();
    assert!(!RunDir::summary_of(run.path()).exists() && RunDir::holds_unfinished_run(&path));
    for error in [
        RunDir::open(&path).unwrap_err(),
        RunDir::create_named(&path, Existing::Replace).unwrap_err(),
    ] {
        assert!(matches!(error, TrainError::Locked { .. }), "{error}");
    }
}

#[test]
fn a_run_killed_in_its_first_instant_leaves_a_vacant_directory() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("run");
    drop(RunDir::create_named(&path, Existing::Refuse).unwrap());
    fs::write(path.join(".ssa-partial-0123456789ab"), "# The res").unwrap();
    let run = RunDir::create_named(&path, Existing::Refuse).unwrap();
    run.write_config(&TrainConfig::default()).unwrap();
    assert!(RunDir::holds_unfinished_run(&path));
    assert_eq!(names(&path), [CONFIG, LOCK]);
}

#[test]
fn the_newest_unfinished_run_of_a_configuration_is_found() {
    let directory = tempdir().unwrap();
    let parent = directory.path().join("runs");
    let config = TrainConfig::default();
    let open = || RunDir::open_unfinished(&parent, &config).unwrap();
    assert!(open().is_none(), "there are no runs at all");
    let begin = |second: i64, steps: usize| {
        let run =
            RunDir::create_at(&parent, "ssa", Timestamp::from_second(second).unwrap()).unwrap();
        let mut config = config.clone();
        config.training.steps = steps;
        run.write_config(&config).unwrap();
        run.path().to_owned()
    };
    let [first, second] = [1, 2].map(|second| begin(second, config.training.steps));
    begin(3, 7);
    let finished = begin(4, config.training.steps);
    fs::write(finished.join(SUMMARY), "{}").unwrap();
    fs::create_dir(parent.join("ssa-notes")).unwrap();
    fs::write(parent.join("ssa-text"), "x").unwrap();
    let newest = open().unwrap();
    assert_eq!(newest.path(), second);
    // While it is locked, the previous one is the newest.
    assert_eq!(open().unwrap().path(), first);
    drop(newest);
    assert_eq!(open().unwrap().path(), second);
}

#[test]
fn foreign_files_are_never_overwritten() {
    let directory = tempdir().unwrap();
    let foreign = directory.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join(CONFIG), "[build]\n").unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join(METRICS), "x").unwrap();

    for (path, reason) in [
        (&foreign, "its config.toml was not written by a run"),
        (&file, "it is a file"),
        (&other, "it has files but no readable config.toml"),
    ] {
        let message = RunDir::create_named(path, Existing::Replace).unwrap_err().to_string();
        let expected = format!(
            "is not a run directory and is not overwritten: {reason}\nhint: name another directory"
        );
        assert!(message.ends_with(&expected), "{message}");
    }
    assert_eq!(fs::read_to_string(foreign.join(CONFIG)).unwrap(), "[build]\n");
    assert_eq!(names(&other), [METRICS]);
}

#[cfg(unix)]
#[test]
fn a_link_is_not_followed_out_of_the_run() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("run");
    let run = finished_run(&path);
    let checkpoint = run.checkpoint();
    drop(run);
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&checkpoint, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &checkpoint).unwrap();
    let error = RunDir::create_named(&path, Existing::Replace).unwrap_err();
    assert!(matches!(error, TrainError::NotARun { .. }), "{error}");
    let files = [
        "config.json",
        "configuration_ssa.py",
        "model.safetensors",
        "modeling_ssa.py",
        "tokenizer.json",
    ];
    assert_eq!(names(&elsewhere), files);
}

#[test]
fn io_errors_name_the_path_and_a_remedy() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    let message = RunDir::create(&file, "demo").unwrap_err().to_string();
    assert!(message.contains(&file.display().to_string()), "{message}");
    assert!(message.contains("use a path whose parents are directories"), "{message}");

    let full = FileError::at(Operation::Write, Path::new("runs/a"));
    let full = TrainError::from(full(ErrorKind::StorageFull.into())).to_string();
    assert!(full.starts_with("cannot write runs/a: "), "{full}");
    assert!(
        full.ends_with("\nhint: free some space, or use a directory on another disk"),
        "{full}"
    );
}

#[test]
fn progress_is_read_without_a_lock() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    assert_eq!(RunDir::progress_of(&path).unwrap(), Progress::New);
    let run = RunDir::create_named(&path, Existing::Refuse).unwrap();
    assert_eq!(RunDir::progress_of(&path).unwrap(), Progress::New);
    run.write_config(&TrainConfig::default()).unwrap();
    assert_eq!(RunDir::progress_of(&path).unwrap(), Progress::Unfinished { step: 0 });
    fs::create_dir_all(run.checkpoints().path(7)).unwrap();
    assert_eq!(RunDir::progress_of(&path).unwrap(), Progress::Unfinished { step: 7 });
    fs::write(path.join("summary.json"), "{}").unwrap();
    assert_eq!(RunDir::progress_of(&path).unwrap(), Progress::Finished);
    let other = parent.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes"), "x").unwrap();
    let message = RunDir::progress_of(&other).unwrap_err().to_string();
    assert!(message.contains("is not a run directory and is not overwritten"), "{message}");
}
