//! A whole training step of a model: losses and every gradient of small models.

use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_kernels::{DType, Device, Documents};
use ssa_model::{
    AttentionMode, Input, LossDenominators, Method, Model, ModelConfig, ModelError, ModelSettings,
    Objective, SparseBudget, TrainBatch,
};

use crate::architecture::{Architecture, vary_constants};
use crate::plain::TrainStep;
use crate::step::check_step;
use crate::{Context, Result};

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
    architecture: Architecture,
}

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for case in cases() {
        check(context, &case).map_err(kernel_error)?;
    }
    Ok(())
}

fn cases() -> [Case; 13] {
    use AttentionMode::{Full, Sparse};
    let base = Case {
        method: Method::SSA,
        stream: Full,
        heads: [16, 1],
        head_dim: 64,
        budget: [16, 4],
        rows: [2, 200],
        packed: true,
        recompute: false,
        architecture: Architecture::GATED,
    };
    let qkv_bias = Architecture { qkv_bias: true, ..Architecture::GATED };
    let qk_norm = Architecture { qk_norm: true, ..Architecture::GATED };
    [
        Case { method: Method::FULL, ..base },
        Case { method: Method::MOBA, stream: Sparse, ..base },
        Case { method: Method::NSA, stream: Sparse, ..base },
        Case { ..base },
        Case { stream: Sparse, ..base },
        Case { stream: Sparse, recompute: true, ..base },
        // Every block selected: nothing depends on a choice.
        Case { budget: [16, 16], ..base },
        Case { stream: Sparse, budget: [32, 8], packed: false, ..base },
        // Shapes off the fast paths: odd lengths and groups, a small head.
        Case { heads: [6, 2], head_dim: 32, budget: [8, 3], rows: [3, 67], ..base },
        Case { heads: [4, 4], head_dim: 16, budget: [5, 2], rows: [1, 101], ..base },
        // The shape of SmolLM2's groups, without gates; SSA models made of Qwen2 and Qwen3.
        Case { method: Method::FULL, heads: [9, 3], architecture: Architecture::PLAIN, ..base },
        Case { stream: Sparse, heads: [9, 3], architecture: qkv_bias, ..base },
        Case { stream: Sparse, heads: [4, 2], architecture: qk_norm, ..base },
    ]
}

/// The model's own checks pass here, so what is left are failures of the device.
pub(crate) fn kernel_error(error: ModelError) -> ssa_kernels::KernelError {
    match error {
        ModelError::Kernel(error) => error,
        other => {
            ssa_kernels::KernelError::Cuda { call: "a step of a model", message: other.to_string() }
        }
    }
}

fn check(context: &mut Context<'_>, case: &Case) -> Result<(), ModelError> {
    let [rows, tokens] = case.rows;
    let [heads, kv_heads] = case.heads;
    context.case(format!(
        "{} {}{}{} HQ {heads} H {kv_heads} D {} {}x{} B {rows} T {tokens}",
        case.method,
        case.stream,
        if case.recompute { " recomputed" } else { "" },
        case.architecture.name(),
        case.head_dim,
        case.budget[0],
        case.budget[1]
    ));
    let device = context.device();
    let model = model(case)?.to_device(device)?;
    let exact = Model::new(
        model.config().clone(),
        model.parameters().to_device(&Device::Cpu, DType::F32)?,
    )?;
    let step = step(context, &model, case)?;

    let (losses, grads) = check_step(context, &step, &model, &exact)?;
    let (again, grads_again) = step.run(&model)?;
    let mut differ = usize::from(losses != again);
    for ((_, grad), (_, grad_again)) in grads.named().into_iter().zip(grads_again.named()) {
        differ += usize::from(!grad.same_elements(grad_again)?);
    }
    context.check("same bits", differ);
    Ok(())
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
        budget: SparseBudget::new(case.budget[0], case.budget[1])?,
        window_size: if case.method.uses_window() { 32 } else { 0 },
        attention_method: case.method,
        gated: case.architecture.gated,
        qkv_bias: case.architecture.qkv_bias,
        qk_norm: case.architecture.qk_norm,
        bos_token_id: None,
        eos_token_id: vec![256],
        ..ModelSettings::ssa_1b()
    })
}

fn model(case: &Case) -> Result<Model, ModelError> {
    let mut model = Model::init(config(case)?, 7)?;
    vary_constants(&mut model)?;
    Ok(model)
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
    labels
        .iter_mut()
        .zip(&valid)
        .filter(|(_, valid)| !**valid)
        .for_each(|(label, _)| *label = IGNORE_INDEX);
    TrainBatch::new(Input::new(ids, rows, tokens, documents)?, labels, Some(valid))
}

fn step(context: &mut Context<'_>, model: &Model, case: &Case) -> Result<TrainStep, ModelError> {
    let batch = batch(context, case)?;
    let target_tokens = batch.labels().iter().filter(|&&label| label != IGNORE_INDEX).count();
    Ok(TrainStep {
        stream: case.stream,
        objective: Objective {
            attention: model.config().attention_options(case.stream),
            alpha: 10.0,
            alignment: Default::default(),
            gated_alignment: true,
            z_loss: 1e-4,
            recompute: case.recompute,
        },
        denominators: LossDenominators { target_tokens, valid_tokens: batch.input().len() - 7 },
        batch,
    })
}

#[cfg(test)]
mod tests {
    use ssa_kernels::ops::attention::alignment::{AlignmentDirection, AlignmentKind};
    use ssa_model::DocumentMasking;

    use super::*;
    use crate::plain::Rounding;
    use crate::selection;
    use crate::step::{compare, relative};

    /// The last case, which is the smallest, of every method and stream.
    fn small_cases() -> Vec<Case> {
        let [.., last] = cases();
        let streams = |&method: &Method| method.modes().map(move |stream| (method, stream));
        let all = Method::ALL.iter().flat_map(streams);
        all.map(|(method, stream)| Case { method, stream, ..last }).collect()
    }

    fn with_step(case: &Case, test: impl FnOnce(&Model, TrainStep)) {
        let mut observe = |_: &crate::Outcome| ();
        let mut context = Context::new(&Device::Cpu, "model", &mut observe);
        let model = model(case).unwrap();
        let step = step(&mut context, &model, case).unwrap();
        test(&model, step);
    }

    fn outcomes(compare: impl FnOnce(&mut Context<'_>)) -> Vec<crate::Outcome> {
        let mut observe = |_: &crate::Outcome| ();
        let mut context = Context::new(&Device::Cpu, "model", &mut observe);
        compare(&mut context);
        context.finish(Ok(())).unwrap()
    }

    /// Two derivations of the same gradients: the model's by its ops in `f32`, and the references'
    /// in `f64`.
    fn assert_same_step(model: &Model, step: &TrainStep) {
        let (losses, grads) = step.run(model).unwrap();
        let exact = step.plain(model, Rounding::None, None).unwrap();
        for (loss, exact) in [
            (losses.cross_entropy, exact.losses.cross_entropy),
            (losses.z_loss, exact.losses.z_loss),
            (losses.alignment, exact.losses.alignment),
        ] {
            assert!((loss - exact).abs() <= 1e-6 * exact, "{loss} {exact}");
        }
        for ((name, grad), (_, exact)) in grads.named().into_iter().zip(exact.grads.named()) {
            let error = relative(grad.as_slice().unwrap(), exact.as_slice().unwrap());
            assert!(error < 2e-5, "{name}: {error:.2e}");
        }
    }

    #[test]
    fn without_rounding_a_step_is_the_models() {
        for case in small_cases() {
            with_step(&case, |model, step| assert_same_step(model, &step));
        }
    }

    #[test]
    fn so_it_is_with_other_options() {
        for case in small_cases() {
            with_step(&case, |model, mut step| {
                step.objective.attention.document_masking = DocumentMasking::FullOnly;
                step.objective.gated_alignment = false;
                step.objective.alignment.kind = AlignmentKind::Mse;
                step.objective.alignment.direction = AlignmentDirection::FullToSparse;
                assert_same_step(model, &step);
            });
        }
    }

    /// A computation as good as a plain one passes with a margin.
    #[test]
    fn another_plain_computation_passes() {
        for case in small_cases() {
            with_step(&case, |model, step| {
                let selections =
                    selection::of_device(model, step.batch.input(), &step.options()).unwrap();
                let other =
                    step.plain(model, Rounding::Bf16 { unit: 1.1 }, Some(&selections)).unwrap();
                let outcomes = outcomes(|context| {
                    compare(context, &step, model, (&other.losses, &other.grads), &selections)
                        .unwrap();
                });
                let worst = outcomes.iter().map(crate::Outcome::share).fold(0.0, f64::max);
                assert!(worst < 0.8, "{outcomes:#?}");
            });
        }
    }

    /// One whose alignment loss weighs a fifth more does not.
    #[test]
    fn a_wrong_step_fails() {
        let case = cases().into_iter().find(|case| case.head_dim == 16).unwrap();
        with_step(&case, |model, mut step| {
            let selections =
                selection::of_device(model, step.batch.input(), &step.options()).unwrap();
            step.objective.alpha *= 1.2;
            let (losses, grads) = step.run(model).unwrap();
            step.objective.alpha /= 1.2;
            let wrong = outcomes(|context| {
                compare(context, &step, model, (&losses, &grads), &selections).unwrap();
            });
            assert!(wrong.iter().any(|outcome| !outcome.passed()), "{wrong:#?}");
        });
    }
}
