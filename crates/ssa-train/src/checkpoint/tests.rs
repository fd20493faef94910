use std::fs;
use std::io::{self, ErrorKind};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use ssa_files::{Operation, intercept};
use ssa_kernels::{DType, Device};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::TrainError;
use crate::initial_model::initial_model;
use crate::lock::{LOCK, RunLock};
use crate::trainer::Trainer;
use crate::trainer::tests::{plan, rows};

const KEEP_ALL: Retention = Retention { last: usize::MAX, every: 0 };

/// A trainer that has done some steps.
fn trained(steps: usize) -> Trainer {
    let plan = plan(&[]);
    let (model, rows) = (initial_model(&plan).unwrap(), rows(&plan));
    let mut trainer = Trainer::new(plan, model, rows).unwrap();
    (0..steps).for_each(|_| {
        trainer.step().unwrap();
    });
    trainer
}

/// Checkpoints of steps 1 and 2.
fn two_checkpoints() -> (TempDir, Checkpoints, Trainer) {
    let directory = tempdir().unwrap();
    let checkpoints = Checkpoints::of_run(directory.path());
    let lock = RunLock::take(directory.path()).unwrap();
    let mut trainer = trained(1);
    checkpoints.save(&trainer.snapshot().unwrap(), KEEP_ALL, &lock).unwrap();
    trainer.step().unwrap();
    checkpoints.save(&trainer.snapshot().unwrap(), KEEP_ALL, &lock).unwrap();
    (directory, checkpoints, trainer)
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_holds_everything() {
    let (_directory, checkpoints, trainer) = two_checkpoints();
    assert_eq!(names(checkpoints.directory()), ["latest", "step-1", "step-2"]);
    let newest = checkpoints.newest().unwrap().unwrap();
    assert_eq!(newest.path(), checkpoints.path(2));
    assert_eq!(newest.state().rows_read, 8);
    assert_eq!(newest.config(), trainer.plan().config());
    let resumed = Trainer::resume(trainer.plan().clone(), &newest, rows(trainer.plan())).unwrap();
    let [theirs, ours] = [resumed, trainer].map(|mut trainer| trainer.snapshot().unwrap());
    assert_eq!(theirs.state, ours.state);
    let pairs =
        [(&theirs.parameters, &ours.parameters), (&theirs.m, &ours.m), (&theirs.v, &ours.v)];
    assert!(pairs.iter().all(|(theirs, ours)| theirs.same_elements(ours).unwrap()));
    // Other programs can load the model.
    let model = ssa_model::Model::load(newest.path()).unwrap();
    assert!(model.parameters().same_elements(&ours.parameters).unwrap());
}

#[cfg(unix)]
#[test]
fn latest_is_a_link_to_the_newest() {
    let (_directory, checkpoints, _) = two_checkpoints();
    let link = checkpoints.directory().join(LATEST);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("step-2"));
    Checkpoint::open(&link).unwrap();
}

#[test]
fn damage_is_reported_with_file_and_remedy() {
    let (_directory, checkpoints, _) = two_checkpoints();
    let newest = checkpoints.path(2);
    for name in FILES.iter().chain(&[SUMS]) {
        let file = newest.join(name);
        let whole = fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        for (bytes, what) in [
            (Some(&whole[..whole.len() / 2]), "cut"),
            (Some(&flipped[..]), "flipped"),
            (None, "gone"),
        ] {
            match bytes {
                Some(bytes) => fs::write(&file, bytes).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let message = checkpoints.newest().unwrap_err().to_string();
            let [checkpoint, path] = [newest.display().to_string(), file.display().to_string()];
            // An error in the list of checksums may be reported for a file.
            if *name == SUMS {
                assert!(message.starts_with(&checkpoint), "{what}: {message}");
            } else {
                assert!(message.starts_with(&path), "{what}: {message}");
            }
            let remedy = format!("or remove {checkpoint} to continue from step 1");
            assert!(
                message.contains(" is damaged: ") && message.ends_with(&remedy),
                "{what}: {message}"
            );
        }
        fs::write(&file, &whole).unwrap();
        checkpoints.newest().unwrap().unwrap();
    }
    fs::remove_dir_all(newest).unwrap();
    assert_eq!(checkpoints.newest().unwrap().unwrap().state().step, 1);
}

#[test]
fn another_format_is_refused() {
    let (_directory, checkpoints, _) = two_checkpoints();
    let path = checkpoints.path(2);
    let state =
        fs::read_to_string(path.join(STATE)).unwrap().replace("\"format\": 2", "\"format\": 3");
    fs::write(path.join(STATE), state).unwrap();
    sums::write(&path, &FILES).unwrap();
    let message = checkpoints.newest().unwrap_err().to_string();
    assert!(message.contains("state.json has format 3, this program reads format 2"), "{message}");
}

/// Older versions wrote no Python files.
#[test]
fn checkpoints_without_python_files_resume() {
    let (_directory, checkpoints, _) = two_checkpoints();
    let path = checkpoints.path(2);
    for name in ["configuration_ssa.py", "modeling_ssa.py"] {
        let sums = fs::read_to_string(path.join(SUMS)).unwrap();
        let kept: Vec<_> = sums.lines().filter(|line| !line.ends_with(name)).collect();
        assert_eq!(kept.len() + 1, sums.lines().count(), "{name}");
        fs::write(path.join(SUMS), kept.join("\n")).unwrap();
        fs::remove_file(path.join(name)).unwrap();
    }
    assert_eq!(checkpoints.newest().unwrap().unwrap().state().step, 2);
}

/// Format 1 has no held-out text.
#[test]
fn the_format_before_is_read() {
    let (_directory, checkpoints, trainer) = two_checkpoints();
    let path = checkpoints.path(2);
    let state = fs::read_to_string(path.join(STATE)).unwrap();
    fs::write(path.join(STATE), state.replace("\"format\": 2", "\"format\": 1")).unwrap();
    sums::write(&path, &FILES).unwrap();
    let checkpoint = checkpoints.newest().unwrap().unwrap();
    assert_eq!((checkpoint.state().step, &checkpoint.state().held_out_sha256), (2, &None));
    checkpoint.check_held_out([&rows(trainer.plan())], &[]).unwrap();
}

#[test]
fn a_swapped_configuration_is_detected() {
    let (_directory, checkpoints, _) = two_checkpoints();
    let path = checkpoints.path(2);
    fs::write(path.join(RUN_CONFIG), "").unwrap();
    sums::write(&path, &FILES).unwrap();
    let message = checkpoints.newest().unwrap_err().to_string();
    assert!(
        message.contains("config.toml is damaged: it is not the configuration that state.json"),
        "{message}"
    );
}

#[test]
fn a_model_of_other_sizes_is_refused_by_tensor() {
    let (_directory, checkpoints, trainer) = two_checkpoints();
    let other = plan(&["model.intermediate_size=16"]);
    let newest = checkpoints.newest().unwrap().unwrap();
    let error =
        Trainer::resume(other, &newest, rows(trainer.plan())).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("model.safetensors: tensor `model.layers.0.mlp.gate_proj.weight`"),
        "{error}"
    );
}

#[test]
fn old_checkpoints_make_room() {
    let directory = tempdir().unwrap();
    let checkpoints = Checkpoints::of_run(directory.path());
    let lock = RunLock::take(directory.path()).unwrap();
    let mut snapshot = trained(0).snapshot().unwrap();
    for step in 1..=7 {
        snapshot.state.step = step;
        checkpoints.save(&snapshot, Retention { last: 2, every: 3 }, &lock).unwrap();
    }
    assert_eq!(checkpoints.steps().unwrap(), [3, 6, 7]);
    assert_eq!(names(checkpoints.directory()), ["latest", "step-3", "step-6", "step-7"]);
}

#[test]
fn only_names_of_ours_are_checkpoints() {
    let (directory, checkpoints, mut trainer) = two_checkpoints();
    let copies = ["step-02", "step-+2", "step-2-copy", "step-x.tmp", "step-02.tmp"];
    for copy in copies {
        fs::create_dir(checkpoints.directory().join(copy)).unwrap();
    }
    assert_eq!(checkpoints.steps().unwrap(), [1, 2]);
    let lock = RunLock::take(directory.path()).unwrap();
    let mut snapshot = trainer.snapshot().unwrap();
    snapshot.state.step = 3;
    checkpoints.save(&snapshot, Retention { last: 1, every: 0 }, &lock).unwrap();
    checkpoints.remove_partial().unwrap();
    assert_eq!(checkpoints.steps().unwrap(), [3]);
    for copy in copies {
        assert!(checkpoints.directory().join(copy).is_dir(), "{copy}");
    }
}

/// `cp -rL` turns the link into a copy of what it points to.
#[test]
fn a_link_that_became_a_directory_is_made_again() {
    let (_directory, checkpoints, _) = two_checkpoints();
    let latest = checkpoints.directory().join(LATEST);
    for what in ["a directory", "a file", "nothing"] {
        ssa_files::remove_tree(&latest).unwrap();
        match what {
            "a directory" => {
                fs::create_dir(&latest).unwrap();
                fs::write(latest.join(STATE), "copy").unwrap();
            }
            "a file" => fs::write(&latest, "step-2").unwrap(),
            _ => {}
        }
        checkpoints.tidy(KEEP_ALL).unwrap();
        assert_eq!(Checkpoint::open(&latest).unwrap().state().step, 2, "{what}");
    }
}

#[test]
fn a_file_system_without_links_has_a_file_instead() {
    let (directory, checkpoints, _) = two_checkpoints();
    let root = directory.path().to_owned();
    intercept(move |operation, path| match operation {
        Operation::Link if path.starts_with(&root) => Err(ErrorKind::PermissionDenied.into()),
        _ => Ok(()),
    });
    checkpoints.tidy(KEEP_ALL).unwrap();
    assert_eq!(fs::read_to_string(checkpoints.directory().join(LATEST)).unwrap(), "step-2");
    assert_eq!(checkpoints.newest().unwrap().unwrap().state().step, 2);
}

/// Until its name is on disk, the new checkpoint does not count, and the old ones must stay.
#[test]
fn old_checkpoints_stay_until_the_new_one_is_on_disk() {
    let (directory, checkpoints, mut trainer) = two_checkpoints();
    let lock = RunLock::take(directory.path()).unwrap();
    let mut snapshot = trainer.snapshot().unwrap();
    snapshot.state.step = 3;
    let (root, renamed) = (checkpoints.directory().to_owned(), checkpoints.path(3));
    intercept(move |operation, path| {
        let fails = operation == Operation::SyncDirectory && path == root && renamed.exists();
        if fails { Err(io::Error::other("broken")) } else { Ok(()) }
    });
    let keep_one = Retention { last: 1, every: 0 };
    let error = checkpoints.save(&snapshot, keep_one, &lock).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("cannot sync the directory ") && message.contains("broken"));
    assert_eq!(checkpoints.steps().unwrap(), [1, 2, 3]);
}

#[test]
fn nothing_is_saved_without_the_lock() {
    let (directory, checkpoints, mut trainer) = two_checkpoints();
    let lock = RunLock::take(directory.path()).unwrap();
    let mut snapshot = trainer.snapshot().unwrap();
    snapshot.state.step = 3;
    // The directory is removed while the files are written.
    let (file, optimizer) = (directory.path().join(LOCK), checkpoints.directory().to_owned());
    intercept(move |operation, path| {
        if operation == Operation::Rename && path == optimizer.join("step-3.tmp").join(OPTIMIZER) {
            fs::remove_file(&file)?;
        }
        Ok(())
    });
    for _ in 0..2 {
        let error = checkpoints.save(&snapshot, KEEP_ALL, &lock).unwrap_err();
        assert!(matches!(error, TrainError::LockLost { .. }), "{error}");
        assert_eq!(checkpoints.steps().unwrap(), [1, 2]);
    }
    // The directory is not created again.
    fs::remove_dir_all(directory.path()).unwrap();
    let error = checkpoints.save(&snapshot, KEEP_ALL, &lock).unwrap_err();
    assert!(matches!(error, TrainError::LockLost { .. }), "{error}");
    assert!(!directory.path().exists());
}

#[test]
fn a_failure_leaves_the_checkpoints_of_before_and_names_them() {
    let (directory, checkpoints, mut trainer) = two_checkpoints();
    trainer.step().unwrap();
    // A directory cannot be renamed onto a file.
    fs::write(checkpoints.path(3), "in the way").unwrap();
    let lock = RunLock::take(directory.path()).unwrap();
    let mut saver = BackgroundSaver::new(checkpoints.clone(), KEEP_ALL, lock);
    saver.save(|| trainer.snapshot()).unwrap();
    let message = saver.wait().unwrap_err().to_string();
    assert!(
        message.starts_with("the checkpoint of step 3 could not be saved: cannot write "),
        "{message}"
    );
    let whole = "\nhint: the checkpoint of step 2 is complete, and the run can be resumed from it";
    assert!(message.ends_with(whole), "{message}");
    fs::remove_file(checkpoints.path(3)).unwrap();
    checkpoints.remove_partial().unwrap();
    assert_eq!(checkpoints.newest().unwrap().unwrap().state().step, 2);
}

#[test]
fn one_snapshot_at_a_time_while_the_trainer_continues() {
    let directory = tempdir().unwrap();
    let lock = RunLock::take(directory.path()).unwrap();
    let checkpoints = Checkpoints::of_run(directory.path());
    let mut saver = BackgroundSaver::new(checkpoints.clone(), KEEP_ALL, lock);
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let log = Arc::new(Mutex::new(Vec::new()));
    let (seen, root) = (log.clone(), checkpoints.directory().to_owned());
    intercept(move |operation, path| {
        if operation == Operation::Rename && path.starts_with(&root) {
            if path.ends_with(OPTIMIZER) {
                blocked.lock().unwrap().recv().unwrap();
            } else if path.ends_with(LATEST) {
                seen.lock().unwrap().push("saved");
            }
        }
        Ok(())
    });
    let snapshot = |step| {
        log.lock().unwrap().push("copied");
        let mut snapshot = trained(0).snapshot().unwrap();
        snapshot.state.step = step;
        snapshot
    };
    saver.save(|| Ok(snapshot(1))).unwrap();
    // The first save is blocked, but the caller is not.
    saver.poll().unwrap();
    assert_eq!(*log.lock().unwrap(), ["copied"]);
    (0..2).for_each(|_| release.send(()).unwrap());
    saver.save(|| Ok(snapshot(2))).unwrap();
    saver.wait().unwrap();
    assert_eq!(*log.lock().unwrap(), ["copied", "saved", "copied", "saved"]);
}

#[test]
fn checksums_are_those_of_sha256sum() {
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Sha256::of("abc").to_string(), abc);
    let (_directory, checkpoints, _) = two_checkpoints();
    let text = fs::read_to_string(checkpoints.path(2).join(SUMS)).unwrap();
    let config = fs::read(checkpoints.path(2).join(MODEL_CONFIG)).unwrap();
    let line = format!("{}  config.json", Sha256::of(&config));
    assert!(text.lines().any(|listed| listed == line), "{text}");
}

#[test]
fn errors_are_those_of_the_crate() {
    let directory = tempdir().unwrap();
    assert!(Checkpoints::of_run(directory.path()).newest().unwrap().is_none());
    let error = Checkpoint::open(directory.path()).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint(CheckpointError::Damaged { .. })), "{error}");
}

#[test]
fn runs_with_frozen_parameters_resume() {
    let plan =
        plan(&["optimizer.trainable=[\"q_proj\", \"g_proj\"]", "optimizer.frozen=[\"layers.0\"]"]);
    let is_trained = |name: &str| {
        name.contains("layers.1.") && (name.contains("q_proj") || name.contains("g_proj"))
    };
    let model = initial_model(&plan).unwrap();
    let before = model.parameters().to_device(&Device::Cpu, DType::F32).unwrap();
    let mut trainer = Trainer::new(plan.clone(), model, rows(&plan)).unwrap();
    trainer.step().unwrap();
    let directory = tempdir().unwrap();
    let checkpoints = Checkpoints::of_run(directory.path());
    let lock = RunLock::take(directory.path()).unwrap();
    checkpoints.save(&trainer.snapshot().unwrap(), KEEP_ALL, &lock).unwrap();

    let newest = checkpoints.newest().unwrap().unwrap();
    let moments = ssa_model::checkpoint::TensorFile::open(&newest.path().join(OPTIMIZER)).unwrap();
    assert_eq!(moments.names().len(), 4);
    assert!(moments.names().iter().all(|name| is_trained(name)));
    let mut resumed = Trainer::resume(plan.clone(), &newest, rows(&plan)).unwrap();
    for _ in 0..2 {
        trainer.step().unwrap();
        resumed.step().unwrap();
    }
    let [ours, theirs] = [trainer, resumed].map(|mut trainer| trainer.snapshot().unwrap());
    assert!(ours.parameters.same_elements(&theirs.parameters).unwrap());
    assert!(ours.m.same_elements(&theirs.m).unwrap());
    for ((name, now), (_, before)) in ours.parameters.named().into_iter().zip(before.named()) {
        assert_eq!(now.same_elements(before).unwrap(), !is_trained(&name), "{name}");
    }
}
