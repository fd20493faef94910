//! `ssa forward`.

use anyhow::Result;
use ssa_kernels::DType;
use ssa_kernels::ops::attention::alignment::{AlignmentDirection, AlignmentKind, AlignmentOptions};
use ssa_kernels::ops::attention::selection::SelectionOptions;
use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_model::{
    AttentionMode, AttentionOptions, Input, Method, Model, Objective, Parameters, SparseBudget,
    StepScale, TrainBatch,
};

use super::device;
use crate::args::{DeviceChoice, ForwardArgs};
use crate::exit::UsageError;
use crate::files::{OutputTensor, check_writable, read_input_ids, write_tensors};

/// Weight of the alignment loss in the paper and the released code.
const DEFAULT_ALPHA: f32 = 10.0;

pub(crate) fn run(args: &ForwardArgs, device: DeviceChoice) -> Result<()> {
    check_writable(&args.output, args.overwrite)?;
    let model = device::load(&args.model, device)?;
    let options = attention_options(args, &model)?;
    let ids = read_input_ids(&args.input, model.config().vocab_size)?;
    let input = Input::rows(ids.ids, ids.batch, ids.tokens)?;

    let logits = model.logits(&model.forward(&input, &options)?)?;
    let mut tensors =
        vec![("logits".to_owned(), OutputTensor::new(logits.shape(), &logits.to_vec()?))];
    if let Some(stream) = args.train_stream {
        tensors.extend(train(args, &model, input, &options, stream)?);
    }
    write_tensors(&args.output, &tensors)
}

fn attention_options(args: &ForwardArgs, model: &Model) -> Result<AttentionOptions> {
    let config = model.config();
    let method = args.method.unwrap_or(config.attention_method);
    let selection = SelectionOptions {
        block_size: args.block_size.unwrap_or(config.block_size),
        block_counts: args.block_counts.unwrap_or(config.block_counts),
        rule: args.selection.into(),
    };
    let budget = SparseBudget::new(selection.block_size, selection.block_counts)?;
    super::check_budgets(&[budget], selection.rule)?;
    if method == Method::Nsa && config.window_size == 0 {
        return Err(UsageError(format!(
            "method nsa needs a window, but window_size is 0 in {}; set it there",
            args.model.join("config.json").display()
        ))
        .into());
    }
    if method == Method::Nsa && args.attention == AttentionMode::Full {
        return Err(UsageError(
            "method nsa has no full attention; pass --attention sparse".to_owned(),
        )
        .into());
    }
    if let Some(stream) = args.train_stream {
        check_stream(method, stream)?;
    }
    Ok(AttentionOptions { method, selection, ..config.attention_options(args.attention) })
}

/// Each method trains certain streams only.
fn check_stream(method: Method, stream: AttentionMode) -> Result<()> {
    let only = match method {
        Method::Full => AttentionMode::Full,
        Method::Moba | Method::Nsa => AttentionMode::Sparse,
        Method::Ssa => return Ok(()),
    };
    if stream == only {
        return Ok(());
    }
    Err(UsageError(format!(
        "method {method} trains on {only} attention only; pass --train-stream {only}"
    ))
    .into())
}

/// The losses of a training step of one stream, and its gradients if they are asked for.
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
    let scale = StepScale { target_tokens, valid_tokens: input.len() };
    let batch = TrainBatch::new(input, labels, None)?;
    let mut grads = Parameters::zeros_on(model.config(), &model.device(), DType::F32)?;
    let streams = vec![stream; model.config().num_hidden_layers];
    let losses = model.train_step(&batch, &objective, &streams, &scale, &mut grads)?;

    let loss = losses.cross_entropy + f64::from(objective.alpha) * losses.alignment;
    let scalars = [
        ("loss", loss),
        ("cross_entropy", losses.cross_entropy),
        ("alignment_loss", losses.alignment),
    ];
    let scalars = scalars.map(|(name, value)| (name.to_owned(), OutputTensor::scalar(value)));
    let named = if args.grads { grads.named() } else { vec![] };
    let gradients = named.into_iter().map(|(name, grad)| {
        Ok((format!("grad.{name}"), OutputTensor::new(grad.shape(), &grad.to_vec()?)))
    });
    scalars.into_iter().map(Ok).chain(gradients).collect()
}

/// The label of each token is the one that follows it in its row.
fn next_tokens(input: &Input) -> Vec<i32> {
    let next = |row: &[u32]| -> Vec<i32> {
        row[1..].iter().map(|&id| id.cast_signed()).chain([IGNORE_INDEX]).collect()
    };
    input.ids().chunks(input.tokens()).flat_map(next).collect()
}
