use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient, max_error};

use super::super::full::{full_attention_bwd, full_attention_fwd};
use super::super::golden::Case;
use super::super::shape::{AttentionCall, AttentionGrads};
use super::super::sparse::{sparse_attention_bwd, sparse_attention_fwd};
use super::*;
use crate::ops::gate::{gate_apply_bwd, gate_apply_fwd};
use crate::ops::testing::{
    assert_refused, normal_f64, tensor, to_f64, values, with_threads, zeros, zeros_like,
};

/// B, T, HQ, D; the last one spans several chunks.
const SHAPES: [[usize; 4]; 4] = [[1, 1, 1, 2], [2, 63, 3, 6], [1, 100, 16, 16], [1, 130, 4, 64]];

fn all_options() -> Vec<AlignmentOptions> {
    let directions = [
        AlignmentDirection::Both,
        AlignmentDirection::FullToSparse,
        AlignmentDirection::SparseToFull,
    ];
    [AlignmentKind::SmoothL1, AlignmentKind::Mse]
        .into_iter()
        .flat_map(|kind| directions.map(|direction| AlignmentOptions { kind, direction }))
        .collect()
}

fn every_third(tokens: usize) -> Vec<bool> {
    (0..tokens).map(|token| token % 3 == 0).collect()
}

fn sum_of(
    full: &Tensor,
    sparse: &Tensor,
    valid: Option<&[bool]>,
    options: &AlignmentOptions,
) -> f64 {
    alignment_fwd(full, sparse, valid, options).unwrap().value().unwrap()
}

#[test]
fn matches_the_reference() {
    for shape in SHAPES {
        let mut random = Random::new(5);
        let [full, sparse] = [(); 2].map(|()| tensor(&mut random, shape));
        let (tokens, width) = (shape[0] * shape[1], shape[2] * shape[3]);
        for options in all_options() {
            for valid in [None, Some(every_third(tokens))] {
                let everywhere = valid.clone().unwrap_or(vec![true; tokens]);
                let [full64, sparse64] = [to_f64(&full), to_f64(&sparse)];
                let sum = sum_of(&full, &sparse, valid.as_deref(), &options);
                let expected =
                    reference::forward(&full64, &sparse64, &everywhere, width, &options).unwrap();
                assert!(
                    (sum - expected).abs() <= 1e-12 * expected,
                    "{options:?}: {sum}, not {expected}"
                );

                let mut grads = [zeros(shape), zeros(shape)];
                let [dfull, dsparse] = &mut grads;
                for _ in 0..2 {
                    alignment_bwd(&full, &sparse, valid.as_deref(), &options, 0.5, dfull, dsparse)
                        .unwrap();
                }
                // Added twice at half the scale.
                let (edfull, edsparse) =
                    reference::backward(&full64, &sparse64, &everywhere, width, &options, 1.0)
                        .unwrap();
                assert_close("dfull", values(dfull), &edfull, Tolerance::F32);
                assert_close("dsparse", values(dsparse), &edsparse, Tolerance::F32);
            }
        }
    }
}

#[test]
fn gradients_stop_at_the_other_output() {
    // The loss as written: one term per direction, in which only the pulled output varies.
    let (tokens, width) = (6, 4);
    let mut random = Random::new(6);
    let [full, sparse] = [(); 2].map(|()| normal_f64(&mut random, tokens * width));
    let valid = every_third(tokens);
    for options in all_options() {
        let one_sided = AlignmentOptions { direction: AlignmentDirection::FullToSparse, ..options };
        let term = |full: &[f64], sparse: &[f64]| {
            reference::forward(full, sparse, &valid, width, &one_sided).unwrap()
        };
        let (dfull, dsparse) =
            reference::backward(&full, &sparse, &valid, width, &options, 1.0).unwrap();
        let zeros = vec![0.0; tokens * width];
        match options.direction {
            AlignmentDirection::SparseToFull => assert_eq!(dfull, zeros),
            _ => assert_gradient("dfull", &full, &dfull, |full| term(full, &sparse)),
        }
        match options.direction {
            AlignmentDirection::FullToSparse => assert_eq!(dsparse, zeros),
            _ => assert_gradient("dsparse", &sparse, &dsparse, |sparse| term(&full, sparse)),
        }
    }
}

#[test]
fn tokens_that_are_not_valid_are_not_read() {
    let shape = [1, 3, 1, 2];
    let full = Tensor::from_vec(vec![0.0, 0.0, f32::NAN, f32::NAN, 3.0, 0.5], shape).unwrap();
    let sparse = zeros(shape);
    let options =
        AlignmentOptions { kind: AlignmentKind::SmoothL1, direction: AlignmentDirection::Both };
    let valid = [true, false, true];
    assert_eq!(sum_of(&full, &sparse, Some(&valid), &options), 2.0 * (2.5 + 0.125));
    let mut grads = [zeros(shape), zeros(shape)];
    let [dfull, dsparse] = &mut grads;
    alignment_bwd(&full, &sparse, Some(&valid), &options, 2.0, dfull, dsparse).unwrap();
    assert_eq!(values(dfull), [0.0, 0.0, 0.0, 0.0, 2.0, 1.0]);
    assert_eq!(values(dsparse), [0.0, 0.0, 0.0, 0.0, -2.0, -1.0]);
    assert_eq!(sum_of(&full, &sparse, Some(&[false; 3]), &options), 0.0);
}

#[test]
fn results_do_not_depend_on_threads() {
    let mut random = Random::new(8);
    let [full, sparse] = [(); 2].map(|()| tensor(&mut random, [2, 300, 4, 64]));
    let options =
        AlignmentOptions { kind: AlignmentKind::SmoothL1, direction: AlignmentDirection::Both };
    let sums =
        [1, 5].map(|threads| with_threads(threads, || sum_of(&full, &sparse, None, &options)));
    assert_eq!(sums[0].to_bits(), sums[1].to_bits());
}

#[test]
fn empty_outputs_align() {
    for options in all_options() {
        for shape in [[0, 4, 2, 2], [1, 4, 0, 2]] {
            let mut grads = [zeros(shape), zeros(shape)];
            let [dfull, dsparse] = &mut grads;
            let empty = zeros(shape);
            assert_eq!(sum_of(&empty, &empty, None, &options), 0.0);
            alignment_bwd(&empty, &empty, None, &options, 1.0, dfull, dsparse).unwrap();
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let options =
        AlignmentOptions { kind: AlignmentKind::Mse, direction: AlignmentDirection::Both };
    let [good, bad] = [zeros([1, 2, 3, 4]), zeros([1, 2, 3, 2])];
    assert_refused(alignment_fwd(&good, &bad, None, &options), "sparse");
    assert_refused(alignment_fwd(&good, &good, Some(&[true]), &options), "valid");
    assert_refused(alignment_fwd(&zeros([4]), &zeros([4]), None, &options), "full");
    let backward = |dfull: &Tensor, dsparse: &Tensor| {
        alignment_bwd(
            &good,
            &good,
            None,
            &options,
            1.0,
            &mut zeros_like(dfull),
            &mut zeros_like(dsparse),
        )
    };
    assert_refused(backward(&bad, &good), "dfull");
    assert_refused(backward(&good, &bad), "dsparse");
    backward(&good, &good).unwrap();
}

/// Both streams of a layer, gated and aligned, against the released code: the loss and the
/// gradients of q, k, v and gate.
#[test]
fn matches_the_released_code() {
    let options = AlignmentOptions::default();
    for case in Case::all() {
        let [q, k, v, gate] = ["q", "k", "v", "gate"].map(|name| case.tensor(name));
        let (documents, scale) = (&case.documents, case.softmax_scale());
        let indices = case.block_indices();
        let call = AttentionCall { q: &q, k: &k, v: &v, documents, softmax_scale: scale };
        let full = full_attention_fwd(&call).unwrap();
        let sparse = sparse_attention_fwd(&call, &indices).unwrap();
        let gated = [&full, &sparse].map(|output| gate_apply_fwd(&output.out, &gate).unwrap());
        let mean = 1.0 / q.len() as f64;
        let loss = sum_of(&gated[0], &gated[1], None, &options) * mean;

        let mut dgated = [&q, &q].map(zeros_like);
        let [dfull, dsparse] = &mut dgated;
        alignment_bwd(&gated[0], &gated[1], None, &options, mean as f32, dfull, dsparse).unwrap();
        let mut dgate = Tensor::zeros_like(&gate).unwrap();
        let mut douts = [&q, &q].map(zeros_like);
        for ((dgated, output), dout) in dgated.iter().zip([&full, &sparse]).zip(&mut douts) {
            gate_apply_bwd(dgated, &output.out, &gate, dout, &mut dgate).unwrap();
        }
        let mut grads = AttentionGrads::zeros_like(&q, &k, &v).unwrap();
        full_attention_bwd(&douts[0], &call, &full, &mut grads).unwrap();
        sparse_attention_bwd(&douts[1], &call, &indices, &sparse, &mut grads).unwrap();

        let expected = f64::from(case.golden.tensor("align_loss").values[0]);
        assert!(
            (loss - expected).abs() < 1e-6 * expected.max(1.0),
            "{}: {loss}, expected {expected}",
            case.name
        );
        for (name, grad) in
            [("dq", &grads.dq), ("dk", &grads.dk), ("dv", &grads.dv), ("dgate", &dgate)]
        {
            let expected = case.golden.tensor(&format!("{name}_align"));
            let largest = expected.values.iter().fold(0f32, |max, value| max.max(value.abs()));
            let error = max_error(values(grad), &expected.values) / f64::from(largest);
            println!("{} {name}_align: {error:.1e}", case.name);
            // Relative to the largest element: the mean over all elements makes every gradient
            // tiny.
            assert!(error < 2e-5, "{} {name}_align differs by {error:.1e}", case.name);
        }
    }
}
