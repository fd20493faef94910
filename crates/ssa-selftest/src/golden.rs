//! Golden cases: small models with the logits, losses and gradients that the released code computes from them.
//!
//! ```text
//! <directory>/model/<method>_<...>/    config.json, model.safetensors
//!     expected.json                    `eval_loss.<stream>`, `train_loss.<stream>`
//!     expected.safetensors             input_ids, `logits.<stream>`, `grad.<stream>.<weight>`
//! ```
//!
//! The name of a case begins with its method; one that ends with `streaming_topk` needs the released selection.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_kernels::{DType, Device};
use ssa_model::{
    AttentionMode, AttentionOptions, Input, Method, Model, ModelError, Objective, Parameters, StepLosses,
    StepScale, TrainBatch,
};
use ssa_testkit::{Golden, GoldenTensor};

use crate::Outcome;
use crate::context::Context;
use crate::model::{allowed, compare_gradients, distance, norm, rounded};

/// The weight of the alignment loss in the files.
const ALPHA: f64 = 10.0;

/// Why golden cases could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A file is missing, damaged or not what a case holds.
    #[error("{0}")]
    File(String),
    /// A model cannot be read or run.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// A model and what the released code makes of it.
pub struct Case {
    /// Name of its directory.
    pub name: String,
    /// The model, on the CPU.
    pub model: Model,
    method: Method,
    rule: SelectionRule,
    expected: Golden,
    losses: BTreeMap<String, f64>,
}

impl Case {
    /// The cases of a directory, by name.
    ///
    /// # Errors
    /// [`GoldenError`] names the file that is missing or wrong.
    pub fn all(directory: &Path) -> Result<Vec<Self>, GoldenError> {
        let directory = directory.join("model");
        let wrong = |error: std::io::Error| GoldenError::File(format!("{}: {error}", directory.display()));
        let entries = fs::read_dir(&directory).map_err(wrong)?;
        let mut paths =
            entries.map(|entry| Ok(entry.map_err(wrong)?.path())).collect::<Result<Vec<_>, GoldenError>>()?;
        paths.sort();
        paths.iter().filter(|path| path.is_dir()).map(|path| Self::read(path)).collect()
    }

    fn read(directory: &Path) -> Result<Self, GoldenError> {
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = directory.join("expected.json");
        let wrong = |problem: String| GoldenError::File(format!("{}: {problem}", path.display()));
        let text = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let streaming = name.ends_with("streaming_topk");
        Ok(Self {
            model: Model::load(directory)?,
            method: name.split('_').next().unwrap_or_default().parse()?,
            rule: if streaming { SelectionRule::Reference } else { SelectionRule::Exact },
            expected: Golden::open(&directory.join("expected.safetensors")).map_err(GoldenError::File)?,
            losses: serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?,
            name,
        })
    }

    /// The streams of `eval_loss` or `train_loss`.
    pub fn streams(&self, kind: &str) -> Vec<String> {
        let name = |key: &String| key.strip_prefix(kind)?.strip_prefix('.').map(str::to_owned);
        self.losses.keys().filter_map(name).collect()
    }

    /// Options of a stream named in the files; `eval` and `train` stand for a method's only stream.
    pub fn options(&self, stream: &str) -> AttentionOptions {
        let mode = match (stream, self.method) {
            ("full", _) | (_, Method::Full) => AttentionMode::Full,
            _ => AttentionMode::Sparse,
        };
        let mut options = self.model.config().attention_options(mode);
        options.method = self.method;
        options.selection.rule = self.rule;
        options
    }

    /// The token ids that the case is run on.
    ///
    /// # Errors
    /// [`GoldenError::File`] without them, [`GoldenError::Model`] if they are no rows of tokens.
    pub fn input(&self) -> Result<Input, GoldenError> {
        let ids = self.tensor("input_ids")?;
        let [batch, tokens] = [0, 1].map(|axis| ids.shape.get(axis).copied().unwrap_or(0));
        Ok(Input::rows(ids.values.iter().map(|&id| id as u32).collect(), batch, tokens)?)
    }

    /// A tensor of `expected.safetensors`.
    ///
    /// # Errors
    /// [`GoldenError::File`] if there is none of this name.
    pub fn tensor(&self, name: &str) -> Result<&GoldenTensor, GoldenError> {
        let missing =
            || GoldenError::File(format!("{}: expected.safetensors has no tensor {name}", self.name));
        self.expected.tensors.get(name).ok_or_else(missing)
    }

    /// A loss of `expected.json`; NaN, which nothing equals, if there is none.
    pub fn loss(&self, key: &str) -> f64 {
        self.losses.get(key).copied().unwrap_or(f64::NAN)
    }

    /// One training step of a model of this case: losses and gradients.
    ///
    /// # Errors
    /// As [`Case::input`], and what the model fails with.
    pub fn step(&self, model: &Model, stream: &str) -> Result<(StepLosses, Parameters), GoldenError> {
        let attention = self.options(stream);
        let streams = vec![attention.mode; model.config().num_hidden_layers];
        let objective = Objective {
            attention,
            alpha: ALPHA as f32,
            alignment: Default::default(),
            gated_alignment: true,
            z_loss: 0.0,
            recompute: false,
        };
        let input = self.input()?;
        let next = |row: &[u32]| -> Vec<i32> {
            row[1..].iter().map(|&id| id.cast_signed()).chain([IGNORE_INDEX]).collect()
        };
        let labels: Vec<i32> = input.ids().chunks(input.tokens()).flat_map(next).collect();
        let scale = StepScale { target_tokens: labels.len() - input.batch(), valid_tokens: labels.len() };
        let batch = TrainBatch::new(input, labels, None)?;
        let mut grads = Parameters::zeros_on(model.config(), &model.device(), DType::F32);
        let losses = model.train_step(&batch, &objective, &streams, &scale, &mut grads)?;
        Ok((losses, grads))
    }
}

/// The loss that the files hold.
pub fn total_loss(losses: &StepLosses) -> f64 {
    losses.cross_entropy + ALPHA * losses.alignment
}

/// Checks every case of a directory on a device. What is allowed is said in the checks of whole models; here the weights are
/// rounded to the device's type besides, which is that error once.
///
/// # Errors
/// [`GoldenError`] names the file that is wrong, or the device has failed.
pub fn run_golden(
    device: &Device,
    directory: &Path,
    observe: &mut dyn FnMut(&Outcome),
) -> Result<Vec<Outcome>, GoldenError> {
    let mut context = Context::new(device, "golden", observe);
    for case in Case::all(directory)? {
        let rounded = rounded(&mut context, &case.model)?;
        let on_device = case.model.to_device(device)?;
        for stream in case.streams("eval_loss") {
            context.case(format!("{} {stream}", case.name));
            let logits = |model: &Model| -> Result<Vec<f32>, GoldenError> {
                let hidden = model.forward(&case.input()?, &case.options(&stream))?;
                Ok(model.logits(&hidden)?.to_vec().map_err(ModelError::from)?)
            };
            let expected = &case.tensor(&format!("logits.{stream}"))?.values;
            let (actual, plain) = (logits(&on_device)?, logits(&rounded)?);
            let scale = norm(expected);
            let [error, plain] = [actual, plain].map(|values| distance(&values, expected) / scale);
            context.outcome("logits", error, allowed(plain));
        }
        for stream in case.streams("train_loss") {
            context.case(format!("{} {stream}", case.name));
            check_step(&mut context, &case, [&on_device, &rounded], &stream)?;
        }
    }
    Ok(context.finish(Ok(())).map_err(ModelError::from)?)
}

fn check_step(
    context: &mut Context<'_>,
    case: &Case,
    [on_device, rounded]: [&Model; 2],
    stream: &str,
) -> Result<(), GoldenError> {
    let (losses, grads) = case.step(on_device, stream)?;
    let (plain_losses, plain_grads) = case.step(rounded, stream)?;
    let expected = case.loss(&format!("train_loss.{stream}"));
    let [error, plain] =
        [losses, plain_losses].map(|losses| (total_loss(&losses) - expected).abs() / expected);
    context.outcome("loss", error, allowed(plain));
    let expected = |(name, _)| Ok(case.tensor(&format!("grad.{stream}.{name}"))?.values.as_slice());
    let expected = grads.named().into_iter().map(expected).collect::<Result<Vec<_>, GoldenError>>()?;
    compare_gradients(context, &grads, &plain_grads, &expected)?;
    Ok(())
}
