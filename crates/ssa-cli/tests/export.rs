//! `ssa export`: which models it writes in which layout, and what it refuses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{golden_case, ssa};
use serde_json::Value;
use ssa_files::Sha256;
use ssa_kernels::Tensor;
use ssa_model::checkpoint;

const CASE: &str = "ssa_bs16_k4_T200";

fn export(directory: &Path, model: &Path, to: &str, layout: &str) -> common::Run {
    let model = model.to_str().unwrap();
    ssa(directory, ["export", "--model", model, "--to", to, "--as", layout])
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn config(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("config.json")).unwrap()).unwrap()
}

fn weights(directory: &Path) -> String {
    Sha256::of_file(&directory.join("model.safetensors")).unwrap().to_string()
}

/// A copy of the golden checkpoint whose gate weights are zero.
fn neutral(directory: &Path) -> PathBuf {
    let (config, mut parameters) = checkpoint::load(&golden_case(CASE)).unwrap();
    for layer in &mut parameters.layers {
        layer.g_proj.as_mut().unwrap().fill_zero();
    }
    let path = directory.join("neutral");
    checkpoint::save(&path, &config, &parameters).unwrap();
    path
}

#[test]
fn an_ssa_model_comes_with_its_python_files() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let model = neutral(directory.path());
    fs::write(model.join("generation_config.json"), "{}").unwrap();
    fs::write(model.join("tokenizer_config.json"), "{}").unwrap();
    fs::write(model.join("notes.txt"), "mine").unwrap();
    export(directory.path(), &model, "out", "ssa").succeeds();
    let expected = [
        "config.json",
        "configuration_ssa.py",
        "generation_config.json",
        "model.safetensors",
        "modeling_ssa.py",
        "tokenizer_config.json",
    ];
    assert_eq!(names(&at("out")), expected);
    assert_eq!(weights(&at("out")), weights(&model));
    assert_eq!(config(&at("out")), config(&model));
    // What was exported can be exported again.
    export(directory.path(), &at("out"), "again", "ssa").succeeds();
    assert_eq!(names(&at("again")), expected);
    assert_eq!(names(directory.path()), ["again", "neutral", "out"]);
}

#[test]
fn neutral_gates_move_into_the_output_projection() {
    let directory = tempfile::tempdir().unwrap();
    let model = neutral(directory.path());
    export(directory.path(), &model, "deep/plain", "llama").succeeds();
    let plain = directory.path().join("deep/plain");
    assert_eq!(names(&plain), ["config.json", "model.safetensors"]);
    let config = config(&plain);
    assert_eq!(config["model_type"], "llama");
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    for key in ["auto_map", "attention_method", "block_size", "block_counts", "window_size"] {
        assert!(config.get(key).is_none(), "{key}");
    }
    let (_, parameters) = checkpoint::load(&model).unwrap();
    let file = checkpoint::TensorFile::open(&plain.join("model.safetensors")).unwrap();
    for (name, tensor) in parameters.named() {
        let is_gate = name.contains("g_proj");
        assert_eq!(file.names().contains(&name), !is_gate, "{name}");
        if !is_gate {
            let factor = if name.contains("o_proj") { 0.5 } else { 1.0 };
            let scaled = tensor.to_vec().unwrap().iter().map(|weight| factor * weight).collect();
            let expected = Tensor::from_vec(scaled, tensor.shape().to_vec()).unwrap();
            assert!(file.read(&name).unwrap().same_elements(&expected).unwrap(), "{name}");
        }
    }
}

#[test]
fn gates_that_vary_are_not_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let parts = ["`model.layers.0.self_attn.g_proj.weight`", "hint: ", "--as ssa"];
    export(directory.path(), &golden_case(CASE), "out", "llama").fails(2, &parts);
    let nsa = golden_case("nsa_bs16_k4_w32_T200");
    let model = directory.path().join("nsa");
    let (config, parameters) = checkpoint::load(&nsa).unwrap();
    let settings =
        ssa_model::ModelSettings { attention_method: ssa_model::Method::NSA, ..config.settings() };
    let config = ssa_model::ModelConfig::new(settings).unwrap();
    checkpoint::save(&model, &config, &parameters).unwrap();
    let parts = ["method nsa has no full attention"];
    export(directory.path(), &model, "out", "llama").fails(2, &parts);
    assert_eq!(names(directory.path()), ["nsa"], "nothing is left");
}

#[test]
fn nothing_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let case = golden_case(CASE);
    fs::create_dir(directory.path().join("out")).unwrap();
    export(directory.path(), &case, "out", "ssa").fails(2, &["out: exists", "another --to"]);
    export(directory.path(), &case, "", "ssa").fails(2, &["--to"]);
    export(directory.path(), &directory.path().join("out"), "x", "ssa").fails(3, &["config.json"]);
    export(directory.path(), &case, "x", "gguf").fails(2, &["llama"]);
    assert_eq!(names(directory.path()), ["out"]);
}
