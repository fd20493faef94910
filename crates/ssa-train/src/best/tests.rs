use serde_json::json;
use tempfile::tempdir;

use super::*;
use crate::{Existing, TrainConfig, TrainPlan, initial_model};

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

/// All entries but the lock of the run.
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
        assert!(kept.parameters() == model(seed).parameters());
    }
    assert_eq!(names(run.path()), ["best"]);
    assert_eq!(names(&run.path().join(BEST)), ["best.json", "config.json", "model.safetensors"]);
    assert_eq!(run.best().unwrap(), Some(best(20, 0.1)));
    remove(run.path()).unwrap();
    assert!(names(run.path()).is_empty());
}

/// The states in which a stop between two operations leaves the directory.
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
    // While the new weights are written, for the first time and again.
    place(&new, PARTIAL);
    fs::remove_file(at(PARTIAL).join(NUMBERS)).unwrap();
    settles_to(None);
    place(&new, PARTIAL);
    fs::remove_file(at(PARTIAL).join(NUMBERS)).unwrap();
    place(&old, BEST);
    settles_to(Some(10));
    // After the old ones stepped aside, after the new ones took their place, before the old ones
    // are gone.
    place(&new, PARTIAL);
    place(&old, PREVIOUS);
    settles_to(Some(20));
    place(&new, BEST);
    place(&old, PREVIOUS);
    settles_to(Some(20));
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
