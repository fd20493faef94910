//! Golden cases: small models with the logits, losses and gradients that the released code computes
//! from them.
//!
//! ```text
//! <directory>/model/<method>_<...>/    config.json, model.safetensors
//!     expected.json                    `eval_loss.<stream>`, `train_loss.<stream>`
//!     expected.safetensors             input_ids, `logits.<stream>`, `grad.<stream>.<weight>`
//! ```
//!
//! The name of a case begins with its method; one that ends with `streaming_topk` needs the
//! released selection.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_kernels::{Device, Tensor};
use ssa_model::{
    AttentionMode, AttentionOptions, Input, LossDenominators, Losses, Method, Model, ModelError,
    Objective, Parameters, TrainBatch,
};
use ssa_testkit::{Golden, GoldenTensor};

use crate::Outcome;
use crate::context::{Context, worst};
use crate::plain::{Rounding, TrainStep, logits};
use crate::selection;
use crate::step::{allowed, check_step, plain, relative};

/// The weight of the alignment loss in the files.
const ALPHA: f64 = 10.0;

/// How far the files, computed in `f32`, may be from the definition, relatively.
const FILE_TOLERANCE: f64 = 1e-4;

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

/// A model and the results of the released code for it.
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
        let wrong =
            |error: std::io::Error| GoldenError::File(format!("{}: {error}", directory.display()));
        let entries = fs::read_dir(&directory).map_err(wrong)?;
        let mut paths = entries
            .map(|entry| Ok(entry.map_err(wrong)?.path()))
            .collect::<Result<Vec<_>, GoldenError>>()?;
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
            method: name.split('_').next().unwrap_or_default().parse().map_err(ModelError::from)?,
            rule: if streaming { SelectionRule::Reference } else { SelectionRule::Exact },
            expected: Golden::open(&directory.join("expected.safetensors"))
                .map_err(GoldenError::File)?,
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
        let mode = stream.parse::<AttentionMode>().unwrap_or(self.method.main_mode());
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
        let missing = || {
            GoldenError::File(format!("{}: expected.safetensors has no tensor {name}", self.name))
        };
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
    pub fn step(&self, model: &Model, stream: &str) -> Result<(Losses, Parameters), GoldenError> {
        Ok(self.train_step(stream)?.run(model)?)
    }

    fn train_step(&self, stream: &str) -> Result<TrainStep, GoldenError> {
        let attention = self.options(stream);
        let input = self.input()?;
        let next = |row: &[u32]| -> Vec<i32> {
            row[1..].iter().map(|&id| id.cast_signed()).chain([IGNORE_INDEX]).collect()
        };
        let labels: Vec<i32> = input.ids().chunks(input.tokens()).flat_map(next).collect();
        Ok(TrainStep {
            stream: attention.mode,
            objective: Objective {
                attention,
                alpha: ALPHA as f32,
                alignment: Default::default(),
                gated_alignment: true,
                z_loss: 0.0,
                recompute: false,
            },
            denominators: LossDenominators {
                target_tokens: labels.len() - input.batch(),
                valid_tokens: labels.len(),
            },
            batch: TrainBatch::new(input, labels, None)?,
        })
    }
}

/// The loss that the files hold.
pub fn total_loss(losses: &Losses) -> f64 {
    losses.cross_entropy + ALPHA * losses.alignment
}

/// Checks every case of a directory on a device. The files are what the step in `f64` must give, up
/// to their own `f32`; the device is compared with that step as in the checks of whole models. Here
/// the weights are also rounded to `bf16`, by the device and by plain computations.
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
        let on_device = case.model.to_device(device)?;
        for stream in case.streams("eval_loss") {
            context.case(format!("{} {stream}", case.name));
            check_logits(&mut context, &case, &on_device, &stream)?;
        }
        for stream in case.streams("train_loss") {
            context.case(format!("{} {stream}", case.name));
            check_files(&mut context, &case, &stream)?;
            check_step(&mut context, &case.train_step(&stream)?, &on_device, &case.model)?;
        }
    }
    Ok(context.finish(Ok(())).map_err(ModelError::from)?)
}

fn check_logits(
    context: &mut Context<'_>,
    case: &Case,
    on_device: &Model,
    stream: &str,
) -> Result<(), GoldenError> {
    let (input, options) = (case.input()?, case.options(stream));
    let selections = selection::of_device(on_device, &input, &options)?;
    let compute = |rounding, selections| -> Result<Vec<f32>, ModelError> {
        let logits = logits(&case.model, &input, &options, rounding, selections)?;
        Ok(logits.into_iter().map(|logit| logit as f32).collect())
    };
    let file = &case.tensor(&format!("logits.{stream}"))?.values;
    context.outcome(
        "logits in the file",
        relative(file, &compute(Rounding::None, None)?),
        FILE_TOLERANCE,
    );
    let actual = on_device
        .logits(&on_device.forward(&input, &options)?)?
        .to_vec()
        .map_err(ModelError::from)?;
    let exact = compute(Rounding::None, Some(&selections))?;
    let plain = plain(|rounding| compute(rounding, Some(&selections)))?;
    let errors = plain.iter().map(|plain| relative(plain, &exact));
    context.outcome("logits", relative(&actual, &exact), allowed(errors));
    Ok(())
}

/// The step in `f64` against the files.
fn check_files(context: &mut Context<'_>, case: &Case, stream: &str) -> Result<(), GoldenError> {
    let exact = case.train_step(stream)?.plain(&case.model, Rounding::None, None)?;
    let loss = total_loss(&exact.losses);
    let error = (case.loss(&format!("train_loss.{stream}")) - loss).abs();
    context.outcome("loss in the file", error, FILE_TOLERANCE * loss);
    let error = |(name, grad): (String, &Tensor)| -> Result<f64, GoldenError> {
        let expected = &case.tensor(&format!("grad.{stream}.{name}"))?.values;
        Ok(relative(expected, grad.as_slice().map_err(ModelError::from)?))
    };
    let errors = exact.grads.named().into_iter().map(error).collect::<Result<Vec<_>, _>>()?;
    context.outcome("gradients in the file", worst(errors.into_iter()), FILE_TOLERANCE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_passes_the_golden_cases() {
        let outcomes = run_golden(&Device::Cpu, &ssa_testkit::golden_dir(), &mut |_| ()).unwrap();
        let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed()).collect();
        assert!(!outcomes.is_empty() && failed.is_empty(), "{failed:#?}");
    }
}
