//! A small model, its inputs, and the check of its gradients.

use ssa_kernels::Documents;
use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_model::{
    AttentionMode, Input, LossDenominators, Losses, Method, Model, ModelConfig, Objective,
    Parameters, TrainBatch,
};
use ssa_testkit::Random;

pub(crate) const VOCAB: u32 = 31;

pub(crate) fn config(method: Method) -> ModelConfig {
    config_with(method, true)
}

pub(crate) fn config_with(method: Method, tied: bool) -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "llama-nsa", "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 256,
        "initializer_range": 0.1,
        "tie_word_embeddings": tied, "block_size": 4, "block_counts": 3, "window_size": 10,
        "attention_method": method.to_string(),
    });
    ModelConfig::from_json("test", json.as_object().unwrap()).unwrap()
}

pub(crate) fn model(method: Method) -> Model {
    Model::init(config(method), 7).unwrap()
}

pub(crate) fn ids(seed: u64, len: usize) -> Vec<u32> {
    Random::new(seed).below(VOCAB, len)
}

pub(crate) fn labels(ids: &[u32], documents: &Documents) -> Vec<i32> {
    let mut labels = vec![IGNORE_INDEX; ids.len()];
    for range in documents.ranges() {
        for token in range.start..range.end - 1 {
            labels[token] = ids[token + 1] as i32;
        }
    }
    labels
}

pub(crate) fn batch(
    ids: Vec<u32>,
    rows: usize,
    documents: Documents,
    valid: Option<Vec<bool>>,
) -> TrainBatch {
    let labels = labels(&ids, &documents);
    let tokens = ids.len() / rows;
    TrainBatch::new(Input::new(ids, rows, tokens, documents).unwrap(), labels, valid).unwrap()
}

pub(crate) fn objective(model: &Model) -> Objective {
    Objective {
        attention: model.config().attention_options(AttentionMode::Sparse),
        alpha: 10.0,
        alignment: Default::default(),
        gated_alignment: true,
        z_loss: 0.0,
        recompute: false,
    }
}

pub(crate) fn step(
    model: &Model,
    objective: &Objective,
    mode: AttentionMode,
    batches: &[&TrainBatch],
    denominators: LossDenominators,
) -> (Losses, Parameters) {
    let mut grads = Parameters::zeros(model.config()).unwrap();
    let mut losses = model.step_losses(objective, denominators);
    for batch in batches {
        model.train_step(batch, objective, &[mode; 2], &mut losses, &mut grads).unwrap();
    }
    (losses.read().unwrap(), grads)
}

/// Checks that the directional derivative of the loss along each gradient is the gradient's norm.
///
/// The two-sided alignment gradient equals that of one SmoothL1 in both its arguments, so the
/// step's gradient is that of `cross_entropy + alpha * alignment / 2 + z-loss`.
pub(crate) fn assert_gradients(
    model: &mut Model,
    batch: &TrainBatch,
    objective: &Objective,
    mode: AttentionMode,
    denominators: LossDenominators,
) {
    let (alpha, z_loss) = (f64::from(objective.alpha), f64::from(objective.z_loss));
    let loss = |model: &Model| {
        let (losses, grads) = step(model, objective, mode, &[batch], denominators);
        (losses.cross_entropy + alpha * losses.alignment / 2.0 + z_loss * losses.z_loss, grads)
    };
    let (_, grads) = loss(model);
    let names: Vec<String> = grads.named().into_iter().map(|(name, _)| name).collect();
    for (index, name) in names.iter().enumerate() {
        let gradient = grads.named()[index].1.to_vec().unwrap();
        let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        if norm < 1e-3 {
            continue;
        }
        // Along the gradient itself the derivative is its norm.
        const STEP: f64 = 2e-3;
        let mut moved = |sign: f64| {
            let original = model.parameters().named()[index].1.try_clone().unwrap();
            let mut parameters = model.parameters_mut().named_mut();
            let values = parameters[index].1.as_mut_slice().unwrap();
            for (value, g) in values.iter_mut().zip(&gradient) {
                *value += (sign * STEP * f64::from(*g) / norm) as f32;
            }
            let value = loss(&*model).0;
            *model.parameters_mut().named_mut()[index].1 = original;
            value
        };
        let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * STEP);
        let error = (numeric - norm).abs() / norm;
        assert!(
            error < 0.02,
            "{} {name}: |gradient| {norm}, finite differences {numeric}",
            objective.attention.method
        );
    }
}
