//! What holds for every method.

use ssa_kernels::Documents;
use ssa_kernels::ops::cross_entropy::IGNORE_INDEX;
use ssa_model::{
    AttentionMode, Input, LossDenominators, Method, Model, ModelError, Objective, OptionsError,
    Parameters, SparseBudget, TrainBatch,
};
use ssa_testkit::{Tolerance, assert_close, max_error};

use crate::small_model::{
    VOCAB, assert_gradients, batch, config_with, ids, labels, model, objective, step,
};

#[track_caller]
fn assert_same_gradients(actual: &Parameters, expected: &Parameters, tolerance: f64) {
    for ((name, actual), (_, expected)) in actual.named().into_iter().zip(expected.named()) {
        let error = max_error(actual.as_slice().unwrap(), expected.as_slice().unwrap());
        assert!(error <= tolerance, "gradient of {name} differs by {error:.2e}");
    }
}

#[test]
fn packed_documents_equal_separate_ones() {
    for &method in Method::ALL {
        let model = model(method);
        let [first, second] = [ids(1, 37), ids(2, 26)];
        let packed: Vec<u32> = first.iter().chain(&second).copied().collect();
        let documents = Documents::from_cu_seqlens(vec![0, 37, 63]).unwrap();
        let packed = Input::new(packed, 1, 63, documents).unwrap();
        for mode in method.modes() {
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
    let model = model(Method::SSA);
    let input = Input::rows(ids(3, 2 * 50), 2, 50).unwrap();
    let full = model.config().attention_options(AttentionMode::Full);
    let mut sparse = model.config().attention_options(AttentionMode::Sparse);
    sparse.selection.budget = SparseBudget::new(4, 13).unwrap();
    let [full, sparse] = [full, sparse].map(|options| model.forward(&input, &options).unwrap());
    assert!(max_error(full.as_slice().unwrap(), sparse.as_slice().unwrap()) < 2e-5);
}

#[test]
fn recomputation_changes_nothing() {
    for &method in Method::ALL {
        let model = model(method);
        let documents = Documents::from_cu_seqlens(vec![0, 20, 45]).unwrap();
        let batch = batch(ids(4, 45), 1, documents, None);
        let denominators = LossDenominators { target_tokens: 43, valid_tokens: 45 };
        let kept = objective(&model);
        let recomputed = Objective { recompute: true, ..kept.clone() };
        for mode in method.modes() {
            let (losses, grads) = step(&model, &kept, mode, &[&batch], denominators);
            let (again, grads_again) = step(&model, &recomputed, mode, &[&batch], denominators);
            assert_eq!(losses, again);
            assert_same_gradients(&grads_again, &grads, 0.0);
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_whole_step() {
    for &method in Method::ALL {
        let model = model(method);
        let (a, b) = (ids(5, 40), ids(6, 40));
        let both: Vec<u32> = a.iter().chain(&b).copied().collect();
        // Different numbers of targets per row, so that means of means would be wrong.
        let whole =
            batch(both, 2, Documents::from_cu_seqlens(vec![0, 1, 2, 3, 40, 80]).unwrap(), None);
        let first = batch(a, 1, Documents::from_cu_seqlens(vec![0, 1, 2, 3, 40]).unwrap(), None);
        let second = batch(b, 1, Documents::rows(1, 40).unwrap(), None);
        let denominators = LossDenominators { target_tokens: 36 + 39, valid_tokens: 80 };
        let objective = objective(&model);
        for mode in method.modes() {
            let (losses, grads) = step(&model, &objective, mode, &[&whole], denominators);
            let (sum, summed) = step(&model, &objective, mode, &[&first, &second], denominators);
            assert!((losses.cross_entropy - sum.cross_entropy).abs() < 1e-6);
            assert!((losses.alignment - sum.alignment).abs() < 1e-6);
            assert!((losses.z_loss - sum.z_loss).abs() < 1e-5);
            assert_same_gradients(&summed, &grads, 2e-6);
        }
    }
}

#[test]
fn padding_counts_nowhere() {
    let model = model(Method::SSA);
    let objective = objective(&model);
    let real = ids(8, 30);
    let denominators = LossDenominators { target_tokens: 29, valid_tokens: 30 };
    let plain = batch(real.clone(), 1, Documents::rows(1, 30).unwrap(), None);
    let padded: Vec<u32> = real.iter().copied().chain([0; 10]).collect();
    let documents = Documents::from_cu_seqlens(vec![0, 30, 40]).unwrap();
    let mut labels = labels(&padded, &documents);
    labels[30..].fill(IGNORE_INDEX);
    let valid = (0..40).map(|token| token < 30).collect();
    let padded =
        TrainBatch::new(Input::new(padded, 1, 40, documents).unwrap(), labels, Some(valid))
            .unwrap();
    let (losses, grads) = step(&model, &objective, AttentionMode::Sparse, &[&plain], denominators);
    let (with_padding, padded_grads) =
        step(&model, &objective, AttentionMode::Sparse, &[&padded], denominators);
    assert!((losses.cross_entropy - with_padding.cross_entropy).abs() < 1e-6);
    assert!((losses.alignment - with_padding.alignment).abs() < 1e-6);
    assert_same_gradients(&padded_grads, &grads, 2e-6);
}

#[test]
fn gradients_match_finite_differences() {
    for (method, tied, gated) in [
        (Method::SSA, true, true),
        (Method::SSA, false, false),
        (Method::NSA, false, true),
        (Method::MOBA, true, true),
        (Method::FULL, true, true),
    ] {
        let config = config_with(method, tied);
        let mut model = Model::init(config, 9).unwrap();
        let batch =
            batch(ids(10, 48), 1, Documents::from_cu_seqlens(vec![0, 17, 48]).unwrap(), None);
        let denominators = LossDenominators { target_tokens: 46, valid_tokens: 48 };
        let mut objective = Objective { gated_alignment: gated, z_loss: 0.01, ..objective(&model) };
        // With one block the selection is fixed. Otherwise the loss would be discontinuous where
        // the selection changes.
        objective.attention.selection.budget = SparseBudget::new(4, 1).unwrap();
        let mode = method.main_mode();
        assert_gradients(&mut model, &batch, &objective, mode, denominators);
    }
}

#[test]
fn impossible_calls_are_refused() {
    let nsa = model(Method::NSA);
    let input = Input::rows(ids(1, 10), 1, 10).unwrap();
    let full = nsa.config().attention_options(AttentionMode::Full);
    let error = nsa.forward(&input, &full).unwrap_err();
    assert!(error.to_string().contains("no full attention"));
    let mode = AttentionMode::Full;
    let ModelError::Options(error) = error else { panic!("{error}") };
    assert_eq!(error, OptionsError::NoSuchMode { method: "nsa", mode, has: AttentionMode::Sparse });

    let ssa = model(Method::SSA);
    let sparse = ssa.config().attention_options(AttentionMode::Sparse);
    let outside = Input::rows(vec![0, VOCAB], 1, 2).unwrap();
    assert!(ssa.forward(&outside, &sparse).unwrap_err().to_string().contains("31"));
    let long = Input::rows(ids(1, 300), 1, 300).unwrap();
    assert!(
        ssa.forward(&long, &sparse).unwrap_err().to_string().contains("max_position_embeddings")
    );
}
