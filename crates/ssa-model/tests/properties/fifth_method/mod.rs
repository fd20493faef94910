//! A method is data: a fifth one needs an op, a kind of attention and an entry, and nothing else.

mod method;
mod op;

use std::fs;
use std::path::{Path, PathBuf};

use method::MEAN;
use ssa_kernels::Documents;
use ssa_model::{
    AttentionMode, AttentionOptions, Input, LossDenominators, Losses, Method, Model, Objective,
    SparseBudget, TrainBatch,
};

use crate::small_model::{assert_gradients, batch, config_with, ids, model, objective, step};

#[test]
fn it_takes_less_than_30_lines_besides_its_op() {
    let code = |line: &&str| !line.is_empty() && !line.starts_with("//");
    let lines = include_str!("method.rs").lines().filter(code).count();
    assert!(lines < 30, "{lines} lines");
}

/// No other file of any crate names a method, so none has to change for a fifth.
#[test]
fn only_the_entries_name_methods() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let names: Vec<String> = Method::ALL
        .iter()
        .map(|method| format!("Method::{}", method.name().to_uppercase()))
        .collect();
    let mut naming = Vec::new();
    for source in sources(crates) {
        let text = fs::read_to_string(&source).unwrap();
        // The tests of a file may name methods.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if names.iter().any(|name| code.contains(name)) {
            naming.push(source.strip_prefix(crates).unwrap().to_owned());
        }
    }
    // The paper's models, the cases of two checks, and the default of a setting.
    let allowed = [
        "ssa-model/src/config/mod.rs",
        "ssa-selftest/src/decoding.rs",
        "ssa-selftest/src/model.rs",
        "ssa-train/src/config/sections.rs",
    ];
    assert_eq!(naming, allowed.map(PathBuf::from));
}

/// The Rust sources of the crates, without tests.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !["tests", "benches", "target"].contains(&name) {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") && !["tests.rs", "testing.rs"].contains(&name) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn aligned(model: &Model) -> Objective {
    let mut objective = Objective { z_loss: 0.01, ..objective(model) };
    objective.attention.method = MEAN;
    // With one block the selection is fixed. Otherwise the loss would be discontinuous where the
    // selection changes.
    objective.attention.selection.budget = SparseBudget::new(4, 1).unwrap();
    objective
}

fn packed() -> (TrainBatch, LossDenominators) {
    let documents = Documents::from_cu_seqlens(vec![0, 17, 48]).unwrap();
    let denominators = LossDenominators { target_tokens: 46, valid_tokens: 48 };
    (batch(ids(10, 48), 1, documents, None), denominators)
}

#[test]
fn it_trains_on_both_streams_with_the_right_gradients() {
    let (batch, denominators) = packed();
    for stream in MEAN.modes() {
        let mut model = Model::init(config_with(Method::SSA, false), 9).unwrap();
        let objective = aligned(&model);
        assert_gradients(&mut model, &batch, &objective, stream, denominators);
    }
}

#[test]
fn recomputation_changes_nothing_and_its_streams_are_aligned() {
    let (batch, denominators) = packed();
    let model = model(Method::SSA);
    let kept = aligned(&model);
    let recomputed = Objective { recompute: true, ..kept.clone() };
    let stream = AttentionMode::Full;
    let (losses, grads) = step(&model, &kept, stream, &[&batch], denominators);
    let (again, grads_again) = step(&model, &recomputed, stream, &[&batch], denominators);
    assert_eq!(losses, again);
    assert!(grads.same_elements(&grads_again).unwrap());
    let Losses { alignment, alignment_per_layer, .. } = losses;
    assert!(alignment > 0.0 && alignment_per_layer.iter().all(|&layer| layer > 0.0));
}

#[test]
fn it_runs_at_inference() {
    let model = model(Method::SSA);
    let input = Input::rows(ids(3, 40), 1, 40).unwrap();
    let mean = aligned(&model).attention;
    let run = |method, mode| {
        let options = AttentionOptions { method, mode, ..mean.clone() };
        model.forward(&input, &options).unwrap()
    };
    let [full, sparse] = [AttentionMode::Full, AttentionMode::Sparse];
    assert!(!run(MEAN, full).same_elements(&run(Method::SSA, full)).unwrap());
    assert!(run(MEAN, sparse).same_elements(&run(Method::SSA, sparse)).unwrap());
}
