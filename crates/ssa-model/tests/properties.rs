//! Properties of the whole model that hold for every method.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use ssa_kernels::Documents;
use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_model::{
    AttentionMode, Input, Method, Model, ModelConfig, Objective, Parameters, StepLosses, StepScale,
    TrainBatch,
};
use ssa_testkit::{Random, Tolerance, assert_close, max_error};

const VOCAB: u32 = 31;

fn config(method: Method) -> ModelConfig {
    config_with(method, true)
}

fn config_with(method: Method, tied: bool) -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "llama-nsa", "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 256, "initializer_range": 0.1,
        "tie_word_embeddings": tied, "block_size": 4, "block_counts": 3, "window_size": 10,
        "attention_method": method.to_string(),
    });
    ModelConfig::from_json("test", json.as_object().unwrap()).unwrap()
}

fn model(method: Method) -> Model {
    Model::init(config(method), 7).unwrap()
}

fn ids(seed: u64, len: usize) -> Vec<u32> {
    Random::new(seed).below(VOCAB, len)
}

fn labels(ids: &[u32], documents: &Documents) -> Vec<i32> {
    let mut labels = vec![IGNORE_INDEX; ids.len()];
    for range in documents.ranges() {
        for token in range.start..range.end - 1 {
            labels[token] = ids[token + 1] as i32;
        }
    }
    labels
}

fn batch(ids: Vec<u32>, rows: usize, documents: Documents, valid: Option<Vec<bool>>) -> TrainBatch {
    let labels = labels(&ids, &documents);
    let tokens = ids.len() / rows;
    TrainBatch::new(Input::new(ids, rows, tokens, documents).unwrap(), labels, valid).unwrap()
}

fn objective(model: &Model) -> Objective {
    Objective {
        attention: model.config().attention_options(AttentionMode::Sparse),
        alpha: 10.0,
        alignment: Default::default(),
        gated_alignment: true,
        z_loss: 0.0,
        recompute: false,
    }
}

fn modes(method: Method) -> &'static [AttentionMode] {
    match method {
        Method::Nsa => &[AttentionMode::Sparse],
        _ => &[AttentionMode::Full, AttentionMode::Sparse],
    }
}

const METHODS: [Method; 4] = [Method::Full, Method::Moba, Method::Nsa, Method::Ssa];

fn step(
    model: &Model,
    objective: &Objective,
    mode: AttentionMode,
    batches: &[&TrainBatch],
    scale: StepScale,
) -> (StepLosses, Parameters) {
    let mut grads = Parameters::zeros(model.config()).unwrap();
    let mut total = StepLosses::default();
    for batch in batches {
        let losses = model.train_step(batch, objective, &[mode; 2], &scale, &mut grads).unwrap();
        total.cross_entropy += losses.cross_entropy;
        total.alignment += losses.alignment;
        total.z_loss += losses.z_loss;
    }
    (total, grads)
}

#[track_caller]
fn assert_same_gradients(actual: &Parameters, expected: &Parameters, tolerance: f64) {
    for ((name, actual), (_, expected)) in actual.named().into_iter().zip(expected.named()) {
        let error = max_error(actual.as_slice().unwrap(), expected.as_slice().unwrap());
        assert!(error <= tolerance, "gradient of {name} differs by {error:.2e}");
    }
}

#[test]
fn packed_documents_equal_separate_ones() {
    for method in METHODS {
        let model = model(method);
        let [first, second] = [ids(1, 37), ids(2, 26)];
        let packed: Vec<u32> = first.iter().chain(&second).copied().collect();
        let documents = Documents::from_cu_seqlens(vec![0, 37, 63]).unwrap();
        let packed = Input::new(packed, 1, 63, documents).unwrap();
        for &mode in modes(method) {
            let options = model.config().attention_options(mode);
            let logits = |input: &Input| {
                model.logits(&model.forward(input, &options).unwrap()).unwrap().to_vec().unwrap()
            };
            let separate: Vec<f64> = [first.clone(), second.clone()]
                .into_iter()
                .flat_map(|ids| logits(&Input::rows(ids.clone(), 1, ids.len()).unwrap()))
                .map(f64::from)
                .collect();
            assert_close("logits", &logits(&packed), &separate, Tolerance::F32);
        }
    }
}

#[test]
fn sparse_attention_over_all_blocks_is_full_attention() {
    let model = model(Method::Ssa);
    let input = Input::rows(ids(3, 2 * 50), 2, 50).unwrap();
    let full = model.config().attention_options(AttentionMode::Full);
    let mut sparse = model.config().attention_options(AttentionMode::Sparse);
    sparse.selection.block_counts = 13;
    let [full, sparse] = [full, sparse].map(|options| model.forward(&input, &options).unwrap());
    assert!(max_error(full.as_slice().unwrap(), sparse.as_slice().unwrap()) < 2e-5);
}

#[test]
fn recomputation_changes_nothing() {
    for method in METHODS {
        let model = model(method);
        let documents = Documents::from_cu_seqlens(vec![0, 20, 45]).unwrap();
        let batch = batch(ids(4, 45), 1, documents, None);
        let scale = StepScale { target_tokens: 43, valid_tokens: 45 };
        let kept = objective(&model);
        let recomputed = Objective { recompute: true, ..kept.clone() };
        for &mode in modes(method) {
            let (losses, grads) = step(&model, &kept, mode, &[&batch], scale);
            let (again, grads_again) = step(&model, &recomputed, mode, &[&batch], scale);
            assert_eq!(losses, again);
            assert_same_gradients(&grads_again, &grads, 0.0);
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_whole_step() {
    for method in METHODS {
        let model = model(method);
        let (a, b) = (ids(5, 40), ids(6, 40));
        let both: Vec<u32> = a.iter().chain(&b).copied().collect();
        // Different numbers of targets per row, so that means of means would be wrong.
        let whole =
            batch(both, 2, Documents::from_cu_seqlens(vec![0, 1, 2, 3, 40, 80]).unwrap(), None);
        let first = batch(a, 1, Documents::from_cu_seqlens(vec![0, 1, 2, 3, 40]).unwrap(), None);
        let second = batch(b, 1, Documents::rows(1, 40).unwrap(), None);
        let scale = StepScale { target_tokens: 36 + 39, valid_tokens: 80 };
        let objective = objective(&model);
        for &mode in modes(method) {
            let (losses, grads) = step(&model, &objective, mode, &[&whole], scale);
            let (sum, summed) = step(&model, &objective, mode, &[&first, &second], scale);
            assert!((losses.cross_entropy - sum.cross_entropy).abs() < 1e-6);
            assert!((losses.alignment - sum.alignment).abs() < 1e-6);
            assert!((losses.z_loss - sum.z_loss).abs() < 1e-5);
            assert_same_gradients(&summed, &grads, 2e-6);
        }
    }
}

#[test]
fn padding_counts_nowhere() {
    let model = model(Method::Ssa);
    let objective = objective(&model);
    let real = ids(8, 30);
    let scale = StepScale { target_tokens: 29, valid_tokens: 30 };
    let plain = batch(real.clone(), 1, Documents::rows(1, 30).unwrap(), None);
    let padded: Vec<u32> = real.iter().copied().chain([0; 10]).collect();
    let documents = Documents::from_cu_seqlens(vec![0, 30, 40]).unwrap();
    let mut labels = labels(&padded, &documents);
    labels[30..].fill(IGNORE_INDEX);
    let valid = (0..40).map(|token| token < 30).collect();
    let padded =
        TrainBatch::new(Input::new(padded, 1, 40, documents).unwrap(), labels, Some(valid))
            .unwrap();
    let (losses, grads) = step(&model, &objective, AttentionMode::Sparse, &[&plain], scale);
    let (with_padding, padded_grads) =
        step(&model, &objective, AttentionMode::Sparse, &[&padded], scale);
    assert!((losses.cross_entropy - with_padding.cross_entropy).abs() < 1e-6);
    assert!((losses.alignment - with_padding.alignment).abs() < 1e-6);
    assert_same_gradients(&padded_grads, &grads, 2e-6);
}

/// The two-sided alignment gradient equals that of one SmoothL1 in both its arguments, so the
/// step's gradient is that of `cross_entropy + alpha * alignment / 2 + z-loss`: checked along
/// random directions.
#[test]
fn gradients_match_finite_differences() {
    for (method, tied, gated) in [
        (Method::Ssa, true, true),
        (Method::Ssa, false, false),
        (Method::Nsa, false, true),
        (Method::Moba, true, true),
        (Method::Full, true, true),
    ] {
        let config = config_with(method, tied);
        let mut model = Model::init(config, 9).unwrap();
        let batch =
            batch(ids(10, 48), 1, Documents::from_cu_seqlens(vec![0, 17, 48]).unwrap(), None);
        let scale = StepScale { target_tokens: 46, valid_tokens: 48 };
        let mut objective = Objective { gated_alignment: gated, z_loss: 0.01, ..objective(&model) };
        // With one block there is nothing to choose: otherwise the choice, and with it the loss,
        // could jump.
        objective.attention.selection.block_counts = 1;
        let mode = if method == Method::Full { AttentionMode::Full } else { AttentionMode::Sparse };
        let loss = |model: &Model| {
            let (losses, grads) = step(model, &objective, mode, &[&batch], scale);
            (losses.cross_entropy + 10.0 * losses.alignment / 2.0 + 0.01 * losses.z_loss, grads)
        };
        let (_, grads) = loss(&model);
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
                let original = model.parameters().named()[index].1.clone();
                let mut parameters = model.parameters_mut().named_mut();
                let values = parameters[index].1.as_mut_slice().unwrap();
                for (value, g) in values.iter_mut().zip(&gradient) {
                    *value += (sign * STEP * f64::from(*g) / norm) as f32;
                }
                let value = loss(&model).0;
                *model.parameters_mut().named_mut()[index].1 = original;
                value
            };
            let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * STEP);
            let error = (numeric - norm).abs() / norm;
            assert!(
                error < 0.02,
                "{method} {name}: |gradient| {norm}, finite differences {numeric}"
            );
        }
    }
}

#[test]
fn impossible_calls_are_refused() {
    let nsa = model(Method::Nsa);
    let input = Input::rows(ids(1, 10), 1, 10).unwrap();
    let full = nsa.config().attention_options(AttentionMode::Full);
    assert!(nsa.forward(&input, &full).unwrap_err().to_string().contains("no full attention"));

    let ssa = model(Method::Ssa);
    let sparse = ssa.config().attention_options(AttentionMode::Sparse);
    let outside = Input::rows(vec![0, VOCAB], 1, 2).unwrap();
    assert!(ssa.forward(&outside, &sparse).unwrap_err().to_string().contains("31"));
    let long = Input::rows(ids(1, 300), 1, 300).unwrap();
    assert!(
        ssa.forward(&long, &sparse).unwrap_err().to_string().contains("max_position_embeddings")
    );
}
