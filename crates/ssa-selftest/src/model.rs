//! A whole training step: losses and every gradient of small models against the CPU in `f32` on the same weights.
//!
//! How much a plain computation in `bf16` may be off is found by trying: every weight is changed by half a unit in the last
//! place of a `bf16`, up or down at random, which is to a product what rounding its other operand is, and the CPU runs the step again.
//! What that changes in a loss, or in a gradient by its Euclidean norm, is the error of one rounding in front of
//! every product. A plain computation rounds the other operand and the result as well, so it is taken for half of the plain error,
//! and twice the plain error is allowed, as everywhere. It takes in what no fixed number could: how far a model magnifies a
//! rounding, and blocks whose importance is a near tie and which are chosen or not.

use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_kernels::{DType, Device, Documents, Tensor};
use ssa_model::{
    AttentionMode, Input, Method, Model, ModelConfig, ModelError, ModelSettings, Objective, Parameters,
    StepLosses, StepScale, TrainBatch,
};

use crate::{Context, Result};

/// Half a unit in the last place of a `bf16`, relative.
const ROUNDING: f64 = 1.0 / 512.0;

/// Allowed, in errors of one rounding in front of every product.
const ALLOWED: f64 = 4.0;

/// A loss is one number, which may happen not to move: its error of one rounding is at least so many roundings of its value.
const LOSS_ROUNDINGS: f64 = 4.0;

/// A model and what it is fed.
struct Case {
    method: Method,
    stream: AttentionMode,
    heads: [usize; 2],
    head_dim: usize,
    /// Block size and number of blocks.
    budget: [usize; 2],
    /// Rows and their tokens.
    rows: [usize; 2],
    /// Documents end at random places.
    packed: bool,
    recompute: bool,
}

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    use AttentionMode::{Full, Sparse};
    let base = Case {
        method: Method::Ssa,
        stream: Full,
        heads: [16, 1],
        head_dim: 64,
        budget: [16, 4],
        rows: [2, 200],
        packed: true,
        recompute: false,
    };
    let cases = [
        Case { method: Method::Full, ..base },
        Case { method: Method::Moba, stream: Sparse, ..base },
        Case { method: Method::Nsa, stream: Sparse, ..base },
        Case { ..base },
        Case { stream: Sparse, ..base },
        Case { stream: Sparse, recompute: true, ..base },
        // Every block selected: nothing depends on a choice.
        Case { budget: [16, 16], ..base },
        Case { stream: Sparse, budget: [32, 8], packed: false, ..base },
        // Shapes off the fast paths: odd lengths and groups, a small head.
        Case { heads: [6, 2], head_dim: 32, budget: [8, 3], rows: [3, 67], ..base },
        Case { heads: [4, 4], head_dim: 16, budget: [5, 2], rows: [1, 101], ..base },
    ];
    for case in cases {
        check(context, &case).map_err(kernel_error)?;
    }
    Ok(())
}

/// The model's own checks pass here, so what is left are failures of the device.
fn kernel_error(error: ModelError) -> ssa_kernels::KernelError {
    match error {
        ModelError::Kernel(error) => error,
        other => ssa_kernels::KernelError::Cuda { call: "a step of a model", message: other.to_string() },
    }
}

fn check(context: &mut Context<'_>, case: &Case) -> Result<(), ModelError> {
    let [rows, tokens] = case.rows;
    let [heads, kv_heads] = case.heads;
    context.case(format!(
        "{} {}{} HQ {heads} H {kv_heads} D {} {}x{} B {rows} T {tokens}",
        case.method,
        case.stream,
        if case.recompute { " recomputed" } else { "" },
        case.head_dim,
        case.budget[0],
        case.budget[1]
    ));
    let device = context.device();
    let model = Model::init(config(case)?, 7)?.to_device(device)?;
    let exact = Model::new(model.config().clone(), model.parameters().to_device(&Device::Cpu, DType::F32)?)?;
    let batch = batch(context, case)?;

    let (losses, grads) = step(&model, &batch, case)?;
    let (exact_losses, exact_grads) = step(&exact, &batch, case)?;
    let (rounded_losses, rounded_grads) = step(&rounded(context, &exact)?, &batch, case)?;
    for (what, loss, rounded, exact) in [
        ("cross-entropy", losses.cross_entropy, rounded_losses.cross_entropy, exact_losses.cross_entropy),
        ("alignment", losses.alignment, rounded_losses.alignment, exact_losses.alignment),
    ] {
        // Streams that agree differ by the rounding of their outputs, which the alignment loss squares.
        let least = (LOSS_ROUNDINGS * ROUNDING * exact.abs()).max(ROUNDING * ROUNDING);
        context.outcome(what, (loss - exact).abs(), ALLOWED * (rounded - exact).abs().max(least));
    }
    let exact: Vec<&[f32]> = exact_grads.named().into_iter().map(|(_, grad)| grad.as_slice()).collect();
    compare_gradients(context, &grads, &rounded_grads, &exact)?;
    let (again, grads_again) = step(&model, &batch, case)?;
    let differ = grads.named().iter().zip(grads_again.named()).filter(|((_, a), (_, b))| a != b).count();
    context.check("same bits", differ + usize::from(losses != again));
    Ok(())
}

/// Compares every gradient with its exact values, given in the order of [`Parameters::named`]; `rounded` are those with one
/// rounding in front of every product, on the CPU.
pub(crate) fn compare_gradients(
    context: &mut Context<'_>,
    grads: &Parameters,
    rounded: &Parameters,
    exact: &[&[f32]],
) -> Result<(), ModelError> {
    let whole = exact.iter().map(|exact| norm(exact)).fold(0.0, f64::hypot);
    for (((name, grad), (_, rounded)), exact) in grads.named().into_iter().zip(rounded.named()).zip(exact) {
        // A tensor whose gradient is next to nothing carries the rounding of its neighbours.
        let scale = norm(exact).max(1e-3 * whole);
        let error = distance(&grad.to_vec()?, exact) / scale;
        let one_rounding = distance(rounded.as_slice(), exact) / scale;
        context.outcome(&format!("d {name}"), error, allowed(one_rounding));
    }
    Ok(())
}

/// The relative error allowed where one rounding in front of every product makes this one.
pub(crate) fn allowed(one_rounding: f64) -> f64 {
    ALLOWED * one_rounding.max(ROUNDING)
}

/// The model with every weight half a unit in the last place of a `bf16` up or down.
pub(crate) fn rounded(context: &mut Context<'_>, model: &Model) -> Result<Model, ModelError> {
    let random = context.random();
    let parameters = model.parameters().try_map(|_, weight| -> Result<_, ModelError> {
        let signs = random.below(2, weight.len());
        let change =
            |(weight, sign): (&f32, u32)| weight * (1.0 + (2.0 * sign as f32 - 1.0) * ROUNDING as f32);
        let values = weight.as_slice().iter().zip(signs).map(change).collect();
        Ok(Tensor::from_vec(values, weight.shape())?)
    })?;
    Model::new(model.config().clone(), parameters)
}

pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    norm(&difference)
}

pub(crate) fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

fn config(case: &Case) -> Result<ModelConfig, ModelError> {
    let [heads, kv_heads] = case.heads;
    ModelConfig::new(ModelSettings {
        vocab_size: 257,
        hidden_size: 128,
        intermediate_size: 192,
        num_hidden_layers: 2,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: case.head_dim,
        max_position_embeddings: 512,
        // Large enough for attention that prefers some keys to others.
        initializer_range: 0.15,
        block_size: case.budget[0],
        block_counts: case.budget[1],
        window_size: if case.method == Method::Nsa { 32 } else { 0 },
        attention_method: case.method,
        bos_token_id: None,
        eos_token_id: vec![256],
        ..ModelSettings::ssa_1b()
    })
}

fn batch(context: &mut Context<'_>, case: &Case) -> Result<TrainBatch, ModelError> {
    let [rows, tokens] = case.rows;
    let random = context.random();
    let ids = random.below(257, rows * tokens);
    let mut cu_seqlens = vec![0];
    for row in 0..rows {
        let borders = if case.packed { random.cu_seqlens(tokens, tokens) } else { vec![0, tokens] };
        cu_seqlens.extend(borders[1..].iter().map(|border| row * tokens + border));
    }
    let documents = Documents::from_cu_seqlens(cu_seqlens)?;
    let mut labels = vec![IGNORE_INDEX; ids.len()];
    for range in documents.ranges() {
        for token in range.start..range.end - 1 {
            labels[token] = ids[token + 1].cast_signed();
        }
    }
    // Some padding at the end.
    let valid: Vec<bool> = (0..ids.len()).map(|token| token + 7 < ids.len()).collect();
    labels.iter_mut().zip(&valid).filter(|(_, valid)| !**valid).for_each(|(label, _)| *label = IGNORE_INDEX);
    TrainBatch::new(Input::new(ids, rows, tokens, documents)?, labels, Some(valid))
}

fn step(model: &Model, batch: &TrainBatch, case: &Case) -> Result<(StepLosses, Parameters), ModelError> {
    let objective = Objective {
        attention: model.config().attention_options(case.stream),
        alpha: 10.0,
        alignment: Default::default(),
        gated_alignment: true,
        z_loss: 1e-4,
        recompute: case.recompute,
    };
    let streams = vec![case.stream; model.config().num_hidden_layers];
    let target_tokens = batch.labels().iter().filter(|&&label| label != IGNORE_INDEX).count();
    let scale = StepScale { target_tokens, valid_tokens: batch.input().len() - 7 };
    let mut grads = Parameters::zeros_on(model.config(), &model.device(), DType::F32);
    let losses = model.train_step(batch, &objective, &streams, &scale, &mut grads)?;
    Ok((losses, grads))
}
