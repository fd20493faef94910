use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::json;
use ssa_files::{Operation, intercept};
use tempfile::tempdir;

use super::*;
use crate::config::TrainConfig;
use crate::initial_model::initial_model;
use crate::plan::TrainPlan;
use crate::run_dir::{Existing, RunDir};

fn model(seed: &str) -> Model {
    let small =
        ["model.hidden_size=8", "model.intermediate_size=8", "model.num_hidden_layers=1", seed];
    let config = TrainConfig::parse("", "test", &small.map(str::to_owned)).unwrap();
    initial_model(&TrainPlan::new(config).unwrap()).unwrap()
}

fn best(step: usize, bits_per_byte: f64) -> Best {
    let loss = |bits: f64| json!({ "nats_per_token": 1.0, "bits_per_byte": bits });
    let validation = json!({ "targets": 10, "full": loss(1.0), "sparse": loss(bits_per_byte) });
    let validation = Measurements::new(&validation).unwrap();
    Best { step, by: AttentionMode::Sparse, validation }
}

/// The files of a model with the tokenizer `bytes`, by name.
const FILES: [&str; 5] =
    ["best.json", "config.json", "configuration_ssa.py", "model.safetensors", "modeling_ssa.py"];

/// All entries except the lock of the run.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != crate::lock::LOCK);
    names.sort();
    names
}

#[test]
fn weights_and_numbers_are_replaced_together() {
    let directory = tempdir().unwrap();
    let run = RunDir::create_named(&directory.path().join("run"), Existing::Refuse).unwrap();
    assert_eq!(run.best().unwrap(), None);
    for (seed, step) in [("run.seed=1", 10), ("run.seed=2", 20)] {
        let numbers = best(step, 2.0 / step as f64);
        run.save_best(&model(seed), &Tokenizer::Bytes, &numbers).unwrap();
        assert_eq!(run.best().unwrap(), Some(numbers));
        let kept = Model::load(&run.path().join(BEST)).unwrap();
        assert!(kept.parameters().same_elements(model(seed).parameters()).unwrap());
    }
    assert_eq!(names(run.path()), ["best"]);
    assert_eq!(names(&run.path().join(BEST)), FILES);
    assert_eq!(run.best().unwrap(), Some(best(20, 0.1)));
    remove(run.path()).unwrap();
    assert!(names(run.path()).is_empty());
}

/// Every state of the directory between two operations.
#[test]
fn an_interrupted_save_is_settled() {
    let directory = tempdir().unwrap();
    let run = RunDir::create_named(&directory.path().join("run"), Existing::Refuse).unwrap();
    let at = |name: &str| run.path().join(name);
    let [old, new] = [(10, "run.seed=1"), (20, "run.seed=2")].map(|(step, seed)| {
        run.save_best(&model(seed), &Tokenizer::Bytes, &best(step, 1.0)).unwrap();
        let copy = directory.path().join(seed);
        fs::rename(at(BEST), &copy).unwrap();
        copy
    });
    let place = |from: &Path, to: &str| {
        fs::create_dir(at(to)).unwrap();
        for name in names(from) {
            fs::copy(from.join(&name), at(to).join(&name)).unwrap();
        }
    };
    let settles_to = |step: Option<usize>| {
        assert_eq!(run.best().unwrap().map(|best| best.step), step);
        assert_eq!(names(run.path()), if step.is_some() { vec!["best"] } else { vec![] });
        remove(run.path()).unwrap();
    };
    // While the new weights are written, for the first and a later save.
    place(&new, PARTIAL);
    fs::remove_file(at(PARTIAL).join(NUMBERS)).unwrap();
    settles_to(None);
    place(&new, PARTIAL);
    fs::remove_file(at(PARTIAL).join(NUMBERS)).unwrap();
    place(&old, BEST);
    settles_to(Some(10));
    // After the old weights are renamed, after the new ones take their place, before the old ones
    // are removed.
    place(&new, PARTIAL);
    place(&old, PREVIOUS);
    settles_to(Some(20));
    place(&new, BEST);
    place(&old, PREVIOUS);
    settles_to(Some(20));
}

/// If any operation fails, the previous weights remain, and the next save replaces them.
#[test]
fn a_save_that_fails_anywhere_leaves_complete_weights() {
    let directory = tempdir().unwrap();
    let [first, second] = ["run.seed=1", "run.seed=2"].map(model);
    for failing in 0.. {
        let run = directory.path().join(failing.to_string());
        fs::create_dir(&run).unwrap();
        best(10, 1.0).save(&run, &first, &Tokenizer::Bytes).unwrap();
        let left = std::sync::atomic::AtomicUsize::new(failing);
        let root = run.clone();
        intercept(move |operation, path| {
            let counts = path.starts_with(&root) && operation != Operation::Sync;
            let fails = counts
                && left.fetch_update(Relaxed, Relaxed, |left| Some(left.wrapping_sub(1))) == Ok(0);
            if fails { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        if best(20, 0.5).save(&run, &second, &Tokenizer::Bytes).is_ok() {
            assert!(failing > 10, "{failing} operations");
            break;
        }
        let found = Best::load(&run).unwrap().unwrap();
        let weights = Model::load(&run.join(BEST)).unwrap();
        let expected = if found.step == 10 { &first } else { &second };
        assert!(
            weights.parameters().same_elements(expected.parameters()).unwrap(),
            "operation {failing}"
        );
        assert_eq!(names(&run), ["best"]);
        best(20, 0.5).save(&run, &second, &Tokenizer::Bytes).unwrap();
        assert_eq!(Best::load(&run).unwrap().unwrap().step, 20);
    }
}

#[test]
fn notes_of_the_user_stay_with_the_best_weights() {
    let directory = tempdir().unwrap();
    let run = directory.path();
    for step in [10, 20, 30] {
        best(step, 1.0).save(run, &model("run.seed=1"), &Tokenizer::Bytes).unwrap();
        fs::write(run.join("best").join(format!("{step}.txt")), "mine").unwrap();
    }
    assert_eq!(names(run), ["best"]);
    let expected = [&["10.txt", "20.txt", "30.txt"], &FILES[..]].concat();
    assert_eq!(names(&run.join(BEST)), expected);
}

#[test]
fn damaged_numbers_are_named() {
    let directory = tempdir().unwrap();
    let run = RunDir::create_named(&directory.path().join("run"), Existing::Refuse).unwrap();
    run.save_best(&model("run.seed=1"), &Tokenizer::Bytes, &best(1, 1.0)).unwrap();
    fs::write(run.path().join("best/best.json"), "{").unwrap();
    let message = run.best().unwrap_err().to_string();
    assert!(message.contains("best.json"), "{message}");
}
