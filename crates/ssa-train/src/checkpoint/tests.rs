use std::fs;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use tempfile::{TempDir, tempdir};

use super::*;
use crate::initial_model::initial_model;
use crate::trainer::tests::{plan, rows};
use crate::{TrainError, Trainer};

const KEEP_ALL: Keep = Keep { last: usize::MAX, every: 0 };

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
    let mut trainer = trained(1);
    checkpoints.save(&trainer.snapshot().unwrap(), KEEP_ALL, &|_| ()).unwrap();
    trainer.step().unwrap();
    checkpoints.save(&trainer.snapshot().unwrap(), KEEP_ALL, &|_| ()).unwrap();
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
    let [theirs, ours] = [resumed, trainer].map(|trainer| trainer.snapshot().unwrap());
    assert_eq!(theirs.state, ours.state);
    assert!(theirs.parameters == ours.parameters && theirs.m == ours.m && theirs.v == ours.v);
    // The model is one that others can load.
    let model = ssa_model::Model::load(newest.path()).unwrap();
    assert!(*model.parameters() == ours.parameters);
}

#[cfg(unix)]
#[test]
fn latest_is_a_link_to_the_newest() {
    let (_directory, checkpoints, _) = two_checkpoints();
    let link = checkpoints.directory().join(LATEST);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("step-2"));
    assert!(Checkpoint::open(&link).is_ok());
}

#[test]
fn damage_is_told_with_file_and_remedy() {
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
            // What is wrong with the list of sums may show in a file.
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
        fs::read_to_string(path.join(STATE)).unwrap().replace("\"format\": 1", "\"format\": 2");
    fs::write(path.join(STATE), state).unwrap();
    sums::write(&path, &FILES).unwrap();
    let message = checkpoints.newest().unwrap_err().to_string();
    assert!(message.contains("state.json has format 2, this program reads format 1"), "{message}");
}

#[test]
fn a_swapped_configuration_is_noticed() {
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
    let mut snapshot = trained(0).snapshot().unwrap();
    for step in 1..=7 {
        snapshot.state.step = step;
        checkpoints.save(&snapshot, Keep { last: 2, every: 3 }, &|_| ()).unwrap();
    }
    assert_eq!(checkpoints.steps().unwrap(), [3, 6, 7]);
    assert_eq!(names(checkpoints.directory()), ["latest", "step-3", "step-6", "step-7"]);
}

#[test]
fn a_failure_leaves_the_checkpoints_of_before_and_names_them() {
    let (_directory, checkpoints, mut trainer) = two_checkpoints();
    trainer.step().unwrap();
    // Nothing can be renamed onto a file.
    fs::write(checkpoints.path(3), "in the way").unwrap();
    let mut writer = Writer::new(checkpoints.clone(), KEEP_ALL);
    writer.save(|| trainer.snapshot()).unwrap();
    let message = writer.wait().unwrap_err().to_string();
    assert!(
        message.starts_with("the checkpoint of step 3 could not be saved: cannot write "),
        "{message}"
    );
    fs::remove_file(checkpoints.path(3)).unwrap();
    checkpoints.remove_partial().unwrap();
    assert_eq!(checkpoints.newest().unwrap().unwrap().state().step, 2);
}

#[test]
fn one_snapshot_at_a_time_and_the_trainer_goes_on_meanwhile() {
    let directory = tempdir().unwrap();
    let mut writer = Writer::new(Checkpoints::of_run(directory.path()), KEEP_ALL);
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = log.clone();
    writer.observe(Arc::new(move |step| match step {
        SaveStep::ModelWritten => blocked.lock().unwrap().recv().unwrap(),
        SaveStep::LatestMoved => seen.lock().unwrap().push("saved"),
        _ => {}
    }));
    let snapshot = |step| {
        log.lock().unwrap().push("copied");
        let mut snapshot = trained(0).snapshot().unwrap();
        snapshot.state.step = step;
        snapshot
    };
    writer.save(|| Ok(snapshot(1))).unwrap();
    // The first save is held up, and yet the caller is here.
    writer.poll().unwrap();
    assert_eq!(*log.lock().unwrap(), ["copied"]);
    (0..2).for_each(|_| release.send(()).unwrap());
    writer.save(|| Ok(snapshot(2))).unwrap();
    writer.wait().unwrap();
    assert_eq!(*log.lock().unwrap(), ["copied", "saved", "copied", "saved"]);
}

#[test]
fn checksums_are_those_of_sha256sum() {
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let (_directory, checkpoints, _) = two_checkpoints();
    let text = fs::read_to_string(checkpoints.path(2).join(SUMS)).unwrap();
    let line = text.lines().next().unwrap();
    let config = fs::read(checkpoints.path(2).join(MODEL_CONFIG)).unwrap();
    assert_eq!(line, format!("{}  config.json", sha256(&config)));
}

#[test]
fn errors_are_those_of_the_crate() {
    let directory = tempdir().unwrap();
    assert!(Checkpoints::of_run(directory.path()).newest().unwrap().is_none());
    let error = Checkpoint::open(directory.path()).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint(CheckpointError::Damaged { .. })), "{error}");
}
