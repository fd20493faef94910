//! Models with biases, with norms of heads and without gates; models of which parts are frozen.

use ssa_kernels::{DType, Device, Documents};
use ssa_model::{
    AttentionMode, LossDenominators, Method, Model, ModelConfig, ModelError, ModelSettings,
    OptionsError, Parameters, SparseBudget,
};

use crate::small_model::{assert_gradients, batch, config_with, ids, objective, step};

const DENOMINATORS: LossDenominators = LossDenominators { target_tokens: 46, valid_tokens: 48 };

fn variant(method: Method, [gated, qkv_bias, qk_norm]: [bool; 3]) -> Model {
    let settings = config_with(method, true).settings();
    let settings = ModelSettings { gated, qkv_bias, qk_norm, ..settings };
    let mut model = Model::init(ModelConfig::new(settings).unwrap(), 9).unwrap();
    // Fresh biases are zero and fresh norms one: neither would show in a gradient of the others.
    for (name, tensor) in model.parameters_mut().named_mut() {
        if name.ends_with(".bias") || name.ends_with("_norm.weight") {
            let values = tensor.as_mut_slice().unwrap().iter_mut();
            values.zip(0_u8..).for_each(|(value, i)| *value += 0.1 * f32::from(i % 5) - 0.2);
        }
    }
    model
}

#[test]
fn gradients_match_finite_differences() {
    for (method, parts) in [
        (Method::SSA, [true, true, false]),
        (Method::SSA, [true, false, true]),
        (Method::FULL, [false, false, false]),
        (Method::FULL, [false, true, false]),
        (Method::MOBA, [false, false, true]),
    ] {
        let mut model = variant(method, parts);
        let documents = Documents::from_cu_seqlens(vec![0, 17, 48]).unwrap();
        let batch = batch(ids(10, 48), 1, documents, None);
        let mut objective = objective(&model);
        // With one block there is nothing to choose, so the loss cannot jump.
        objective.attention.selection.budget = SparseBudget::new(4, 1).unwrap();
        assert_gradients(&mut model, &batch, &objective, method.main_mode(), DENOMINATORS);
    }
}

#[test]
fn a_model_without_gates_refuses_methods_that_need_them() {
    let model = variant(Method::FULL, [false; 3]);
    let batch = batch(ids(1, 48), 1, Documents::rows(1, 48).unwrap(), None);
    let mut options = model.config().attention_options(AttentionMode::Sparse);
    model.forward(batch.input(), &options).unwrap();
    options.method = Method::SSA;
    let Err(ModelError::Options(error)) = model.forward(batch.input(), &options) else { panic!() };
    assert_eq!(error, OptionsError::NoGates { method: "ssa" });
    assert!(error.to_string().contains("hint: add them with `ssa convert`"), "{error}");
}

/// Frozen parameters have no gradient; those of the others are bit for bit the same.
#[test]
fn frozen_parameters_get_no_gradient() {
    for parts in [[true, true, true], [true, false, false]] {
        let model = variant(Method::SSA, parts);
        let batch = batch(ids(2, 48), 1, Documents::rows(1, 48).unwrap(), None);
        let objective = objective(&model);
        let (losses, all) =
            step(&model, &objective, AttentionMode::Sparse, &[&batch], DENOMINATORS);
        let names: Vec<String> = all.named().into_iter().map(|(name, _)| name).collect();
        for part in ["q_proj", "g_proj", "layernorm", "mlp", "embed_tokens", "q_norm", "model.norm"]
        {
            let kept = |name: &str| name.contains(part);
            let mut grads =
                Parameters::zeros_for(model.config(), &Device::Cpu, DType::F32, kept).unwrap();
            let mut sums = model.step_losses(&objective, DENOMINATORS);
            let streams = [AttentionMode::Sparse; 2];
            model.train_step(&batch, &objective, &streams, &mut sums, &mut grads).unwrap();
            assert_eq!(sums.read().unwrap(), losses);
            for (name, (grad, all)) in names.iter().zip(grads.named().into_iter().zip(all.named()))
            {
                assert_eq!(grad.1.is_empty(), !kept(name), "{name} with {part}");
                assert!(!kept(name) || grad.1.same_elements(all.1).unwrap(), "{name} with {part}");
            }
        }
    }
}
