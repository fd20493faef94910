//! Plain models as transformers writes them: the same logits, and after conversion to SSA models
//! still the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{AttentionMode, Input, Model, ModelConfig, SparseBudget};
use ssa_testkit::{Golden, golden_dir, max_error};

/// The checkpoints that `tests/python/transformers/write_tiny.py` has written.
fn cases() -> Vec<PathBuf> {
    let directory = golden_dir().join("families");
    let mut cases: Vec<_> =
        fs::read_dir(directory).unwrap().map(|case| case.unwrap().path()).collect();
    cases.sort();
    assert_eq!(cases.len(), 10);
    cases
}

/// The input of a case and the logits that transformers computes for it.
fn expected(case: &Path) -> (Input, Vec<f32>) {
    let golden = Golden::read(&case.join("expected.safetensors"));
    let ids = golden.tensor("input_ids");
    let input = ids.values.iter().map(|&id| id as u32).collect();
    let input = Input::rows(input, ids.shape[0], ids.shape[1]).unwrap();
    (input, golden.tensor("logits").values.clone())
}

fn logits(model: &Model, input: &Input, mode: AttentionMode) -> Vec<f32> {
    let options = model.config().attention_options(mode);
    model.logits(&model.forward(input, &options).unwrap()).unwrap().to_vec().unwrap()
}

#[test]
fn logits_are_those_of_transformers() {
    for case in cases() {
        let (input, expected) = expected(&case);
        let model = Model::load(&case).unwrap();
        let logits = logits(&model, &input, AttentionMode::Full);
        let error = max_error(&logits, &expected);
        assert!(error < 1e-4, "{}: {error:.1e}", case.display());
    }
}

#[test]
fn both_generations_of_configurations_say_the_same() {
    for case in cases() {
        let [new, old] = ["config.json", "config.transformers-4.json"]
            .map(|file| ModelConfig::read(&case.join(file)).unwrap().settings());
        assert_eq!(new, old, "{}", case.display());
    }
}

#[test]
fn sparse_attention_runs_on_plain_models() {
    for case in cases() {
        let (input, _) = expected(&case);
        let model = Model::load(&case).unwrap();
        let mut options = model.config().attention_options(AttentionMode::Sparse);
        let mut run = |budget: &str| {
            let budget: SparseBudget = budget.parse().unwrap();
            options.selection = budget.selection(SelectionRule::Exact);
            model.logits(&model.forward(&input, &options).unwrap()).unwrap().to_vec().unwrap()
        };
        let full = logits(&model, &input, AttentionMode::Full);
        // With every block selected it is full attention; with one of three it is not.
        assert!(max_error(&run("8x3"), &full) < 1e-3, "{}", case.display());
        assert!(max_error(&run("8x1"), &full) > 1e-2, "{}", case.display());
    }
}

#[test]
fn conversion_keeps_every_bit_under_full_attention() {
    for case in cases() {
        let (input, _) = expected(&case);
        let plain = Model::load(&case).unwrap();
        let before = logits(&plain, &input, AttentionMode::Full);
        let variant = (plain.config().qkv_bias, plain.config().qk_norm);
        let budget = SparseBudget::new(4, 2).unwrap();
        let converted = plain.with_gates(budget).unwrap();

        let directory = tempfile::tempdir().unwrap();
        converted.save(directory.path()).unwrap();
        let read = Model::load(directory.path()).unwrap();
        let config = read.config();
        assert!(config.gated && config.budget == budget);
        assert_eq!((config.qkv_bias, config.qk_norm), variant);
        let same_bits =
            |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
        let after = logits(&read, &input, AttentionMode::Full);
        assert!(same_bits(&before, &after), "{}", case.display());
        let message = read.with_gates(budget).err().unwrap().to_string();
        assert!(message.contains("has gates"), "{message}");
    }
}
