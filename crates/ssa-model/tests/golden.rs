//! Parity with the released code: logits, losses and every gradient of every golden case.
//!
//! Tolerances: a float64 re-computation of the same cases differs from these float32 files by up to 1.3e-4 in the
//! logits and 1e-5 in the losses, so agreement better than that would be chance. Gradients are compared relative to
//! the largest element of their tensor; float32 reductions over a few hundred tokens in another order move them
//! by some 1e-5.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_model::{
    AttentionMode, AttentionOptions, Input, Method, Model, Objective, Parameters, StepScale, TrainBatch,
};
use ssa_testkit::{Golden, golden_dir, max_error};

const LOGITS_TOLERANCE: f64 = 2e-4;
const LOSS_TOLERANCE: f64 = 2e-5;
const GRADIENT_TOLERANCE: f64 = 1e-4;

struct Case {
    name: String,
    model: Model,
    method: Method,
    rule: SelectionRule,
    expected: Golden,
    losses: serde_json::Map<String, serde_json::Value>,
}

impl Case {
    fn read(directory: &Path) -> Self {
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        let losses = std::fs::read(directory.join("expected.json")).unwrap();
        Self {
            model: Model::load(directory).unwrap(),
            method: name.split('_').next().unwrap().parse().unwrap(),
            rule: if name.ends_with("streaming_topk") {
                SelectionRule::Reference
            } else {
                SelectionRule::Exact
            },
            expected: Golden::read(&directory.join("expected.safetensors")),
            losses: serde_json::from_slice(&losses).unwrap(),
            name,
        }
    }

    fn ids(&self) -> Vec<u32> {
        self.expected.tensor("input_ids").values.iter().map(|&id| id as u32).collect()
    }

    fn input(&self) -> Input {
        let shape = &self.expected.tensor("input_ids").shape;
        Input::rows(self.ids(), shape[0], shape[1]).unwrap()
    }

    /// Options of a stream named in the files; `eval` and `train` stand for a method's only stream.
    fn options(&self, stream: &str) -> AttentionOptions {
        let mode = match (stream, self.method) {
            ("full", _) | (_, Method::Full) => AttentionMode::Full,
            _ => AttentionMode::Sparse,
        };
        let mut options = self.model.config().attention_options(mode);
        options.method = self.method;
        options.selection.rule = self.rule;
        options
    }

    fn streams(&self, kind: &str) -> Vec<String> {
        let name = |key: &String| key.strip_prefix(kind)?.strip_prefix('.').map(str::to_owned);
        self.losses.keys().filter_map(name).collect()
    }

    fn loss(&self, key: &str) -> f64 {
        self.losses[key].as_f64().unwrap()
    }
}

fn cases() -> Vec<Case> {
    let mut directories: Vec<PathBuf> =
        std::fs::read_dir(golden_dir().join("model")).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    assert!(!directories.is_empty(), "no golden case");
    directories.iter().map(|directory| Case::read(directory)).collect()
}

#[test]
fn logits_match_the_released_code() {
    for case in cases() {
        for stream in case.streams("eval_loss") {
            let hidden = case.model.forward(&case.input(), &case.options(&stream)).unwrap();
            let logits = case.model.logits(&hidden).unwrap();
            let expected = case.expected.tensor(&format!("logits.{stream}"));
            let error = max_error(logits.as_slice(), &expected.values);
            println!("{} {stream}: logits {error:.2e}", case.name);
            assert!(error < LOGITS_TOLERANCE, "{} {stream}: logits differ by {error:.2e}", case.name);
        }
    }
}

#[test]
fn losses_and_gradients_match_the_released_code() {
    for case in cases() {
        for stream in case.streams("train_loss") {
            let attention = case.options(&stream);
            let mode = attention.mode;
            let objective = Objective {
                attention,
                alpha: 10.0,
                alignment: Default::default(),
                gated_alignment: true,
                z_loss: 0.0,
                recompute: false,
            };
            let input = case.input();
            let next = |row: &[u32]| row[1..].iter().map(|&id| id as i32).chain([IGNORE_INDEX]).collect();
            let labels: Vec<i32> = input.ids().chunks(input.tokens()).flat_map::<Vec<i32>, _>(next).collect();
            let scale = StepScale { target_tokens: labels.len() - input.batch(), valid_tokens: labels.len() };
            let batch = TrainBatch::new(input, labels, None).unwrap();
            let config = case.model.config();
            let mut grads = Parameters::zeros(config);
            let streams = vec![mode; config.num_hidden_layers];
            let losses = case.model.train_step(&batch, &objective, &streams, &scale, &mut grads).unwrap();

            let loss = losses.cross_entropy + 10.0 * losses.alignment;
            let loss_error = (loss - case.loss(&format!("train_loss.{stream}"))).abs();
            assert!(loss_error < LOSS_TOLERANCE, "{} {stream}: loss differs by {loss_error:.2e}", case.name);
            let mut worst = (0.0, String::new());
            for (name, grad) in grads.named() {
                let expected = &case.expected.tensor(&format!("grad.{stream}.{name}")).values;
                let largest = expected.iter().fold(0f32, |max, value| max.max(value.abs()));
                let error = max_error(grad.as_slice(), expected) / f64::from(largest);
                if error >= worst.0 {
                    worst = (error, name);
                }
            }
            println!("{} {stream}: loss {loss_error:.2e}, worst gradient {worst:?}", case.name);
            assert!(worst.0 < GRADIENT_TOLERANCE, "{} {stream}: {worst:?}", case.name);
        }
    }
}
