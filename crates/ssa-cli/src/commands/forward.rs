//! `ssa forward`.

use std::path::Path;

use anyhow::Result;
use ssa_kernels::ops::attention::alignment::{AlignmentDirection, AlignmentKind, AlignmentOptions};
use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_kernels::{DType, Device, Tensor};
use ssa_model::{
    AttentionMode, AttentionOptions, Input, LossDenominators, Method, Model, ModelConfig,
    Objective, Parameters, SparseBudget, TrainBatch, parameter_count,
};

use ssa_train::{MemoryEstimate, StepShape};

use super::memory;
use super::model::{self, LoadedModel};
use crate::args::{DeviceChoice, ForwardArgs};
use crate::exit::{NotFiniteError, UsageError};
use crate::files::{OutputTensor, check_writable, read_input_ids, write_tensors};

/// Weight of the alignment loss in the paper and the released code.
const DEFAULT_ALPHA: f32 = 10.0;

pub(crate) fn run(args: &ForwardArgs, device: DeviceChoice) -> Result<()> {
    check_writable(&args.output, args.overwrite)?;
    let LoadedModel { model, directory } = model::load(&args.model, device)?;
    let options = attention_options(args, &directory, model.config())?;
    let ids = read_input_ids(&args.input, model.config().vocab_size)?;
    check_memory(args, &model, ids.batch, ids.tokens)?;
    let input = Input::rows(ids.ids, ids.batch, ids.tokens)?;

    let logits = model.logits(&model.forward(&input, &options)?)?;
    let mut tensors = vec![output("logits".to_owned(), &logits)?];
    if let Some(stream) = args.train_stream {
        tensors.extend(train(args, &model, input, &options, stream)?);
    }
    write_tensors(&args.output, &tensors)
}

/// Refuses an input whose results do not fit in memory.
fn check_memory(args: &ForwardArgs, model: &Model, rows: usize, row: usize) -> Result<()> {
    let (config, device) = (model.config(), model.device());
    let remedy = |_| "use fewer or shorter rows of input_ids".to_owned();
    let logits = rows.saturating_mul(row).saturating_mul(config.vocab_size * size_of::<f32>());
    let working = if args.train_stream.is_some() {
        let method = args.method.unwrap_or(config.attention_method);
        let trained = parameter_count(config);
        let (recompute, saves) = (false, false);
        let (groups, ranks) = (1, 1);
        let step = StepShape {
            model: config,
            method,
            trained,
            tokens: row,
            recompute,
            saves,
            groups,
            ranks,
        };
        let MemoryEstimate { activations, working, gradients, .. } =
            MemoryEstimate::new(&step, rows, device.kind());
        activations.saturating_add(working).saturating_add(gradients)
    } else {
        MemoryEstimate::inference(config, rows.saturating_mul(row), device.kind())
    };
    memory::require(&device, working.saturating_add(logits), "this input", remedy)?;
    // Writing makes another copy of the logits.
    memory::require(&Device::Cpu, logits.saturating_mul(2), "writing the logits", remedy)
}

fn attention_options(
    args: &ForwardArgs,
    directory: &Path,
    config: &ModelConfig,
) -> Result<AttentionOptions> {
    let method = args.method.unwrap_or(config.attention_method);
    let trained = config.budget;
    let budget = match args.budget {
        Some(budget) => budget,
        None => SparseBudget::new(
            args.block_size.unwrap_or(trained.block_size()),
            args.block_counts.unwrap_or(trained.block_counts()),
        )?,
    };
    super::check_budgets(&[budget], args.selection)?;
    let selection = budget.selection(args.selection);
    if method.uses_window() && config.window_size == 0 {
        return Err(UsageError(format!(
            "method {method} needs a window, but window_size is 0 in {0}\n\
             hint: set window_size in {0}",
            directory.join("config.json").display()
        ))
        .into());
    }
    super::require_mode(method, args.attention)?;
    if let Some(stream) = args.train_stream {
        check_stream(method, stream)?;
    }
    Ok(AttentionOptions { method, selection, ..config.attention_options(args.attention) })
}

/// Checks that the method trains on the stream.
fn check_stream(method: Method, stream: AttentionMode) -> Result<()> {
    if method.trains_on(stream) {
        return Ok(());
    }
    let only = method.main_mode();
    Err(UsageError(format!(
        "method {method} trains on {only} attention only\nhint: pass --train-stream {only}"
    ))
    .into())
}

/// Computes the losses of a training step with one stream, and optionally the gradients.
fn train(
    args: &ForwardArgs,
    model: &Model,
    input: Input,
    options: &AttentionOptions,
    stream: AttentionMode,
) -> Result<Vec<(String, OutputTensor)>> {
    let objective = Objective {
        attention: options.clone(),
        alpha: args.alpha.unwrap_or(DEFAULT_ALPHA),
        alignment: AlignmentOptions {
            kind: AlignmentKind::SmoothL1,
            direction: AlignmentDirection::Both,
        },
        gated_alignment: true,
        z_loss: 0.0,
        recompute: false,
    };
    let labels = next_tokens(&input);
    let target_tokens = labels.iter().filter(|&&label| label != IGNORE_INDEX).count();
    let denominators = LossDenominators { target_tokens, valid_tokens: input.len() };
    let batch = TrainBatch::new(input, labels, None)?;
    let mut grads = Parameters::zeros_on(model.config(), &model.device(), DType::F32)?;
    let streams = vec![stream; model.config().num_hidden_layers];
    let mut losses = model.step_losses(&objective, denominators);
    model.train_step(&batch, &objective, &streams, &mut losses, &mut grads)?;
    let losses = losses.read()?;

    let loss = losses.cross_entropy + f64::from(objective.alpha) * losses.alignment;
    if !loss.is_finite() {
        return Err(not_finite("loss"));
    }
    let scalars = [
        ("loss", loss),
        ("cross_entropy", losses.cross_entropy),
        ("alignment_loss", losses.alignment),
    ];
    let scalars = scalars.map(|(name, value)| (name.to_owned(), OutputTensor::scalar(value)));
    let named = if args.grads { grads.named() } else { vec![] };
    let gradients = named.into_iter().map(|(name, grad)| output(format!("grad.{name}"), grad));
    scalars.into_iter().map(Ok).chain(gradients).collect()
}

/// A named tensor, if all its elements are finite.
fn output(name: String, tensor: &Tensor) -> Result<(String, OutputTensor)> {
    let values = tensor.to_vec()?;
    if values.iter().all(|value| value.is_finite()) {
        return Ok((name, OutputTensor::new(tensor.shape(), &values)));
    }
    Err(not_finite(&name))
}

fn not_finite(name: &str) -> anyhow::Error {
    NotFiniteError(format!(
        "{name}: not all elements are finite, so nothing is written\nhint: look for NaN and \
         infinities in the weights of the model"
    ))
    .into()
}

/// The label of each token is the next token in its row.
fn next_tokens(input: &Input) -> Vec<i32> {
    let next = |row: &[u32]| -> Vec<i32> {
        row[1..].iter().map(|&id| id.cast_signed()).chain([IGNORE_INDEX]).collect()
    };
    input.ids().chunks(input.tokens()).flat_map(next).collect()
}
