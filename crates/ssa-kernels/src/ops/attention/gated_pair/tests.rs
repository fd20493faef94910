use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::super::alignment::{AlignmentDirection, AlignmentKind};
use super::*;
use crate::ops::testing::{
    assert_refused, dot, normal_f64, tensor, to_f64, values, zeros, zeros_like,
};

const DIRECTIONS: [AlignmentDirection; 3] =
    [AlignmentDirection::Both, AlignmentDirection::FullToSparse, AlignmentDirection::SparseToFull];

fn every_option() -> impl Iterator<Item = (AlignmentOptions, bool, AttentionMode)> {
    [AlignmentKind::SmoothL1, AlignmentKind::Mse].into_iter().flat_map(|kind| {
        DIRECTIONS.into_iter().flat_map(move |direction| {
            [
                (true, AttentionMode::Full),
                (true, AttentionMode::Sparse),
                (false, AttentionMode::Full),
                (false, AttentionMode::Sparse),
            ]
            .map(|(gated, chosen)| (AlignmentOptions { kind, direction }, gated, chosen))
        })
    })
}

#[test]
fn matches_the_reference_and_adds() {
    for [batch, tokens, heads, head_dim] in [[1, 1, 1, 2], [2, 63, 3, 6], [1, 100, 16, 16]] {
        let mut random = Random::new(1);
        let shape = [batch, tokens, heads, head_dim];
        let [full, sparse, dmixed] = [(); 3].map(|()| tensor(&mut random, shape));
        let gate = tensor(&mut random, [batch, tokens, heads]);
        let valid: Vec<bool> = (0..batch * tokens).map(|token| token % 3 == 0).collect();
        let [full64, sparse64, gate64, dmixed64] = [&full, &sparse, &gate, &dmixed].map(to_f64);
        for (options, gated, chosen) in every_option() {
            let pair = GatedPair { full: &full, sparse: &sparse, gate: &gate, chosen };
            let alignment = PairAlignment { options: &options, gated, valid: Some(&valid) };
            let exact = reference::Pair {
                full: &full64,
                sparse: &sparse64,
                gate: &gate64,
                head_dim,
                chosen,
                gated,
                valid: &valid,
                options: &options,
            };
            let (mixed, sum) = gated_pair_fwd(&pair, &alignment).unwrap();
            let (expected, expected_sum) = reference::forward(&exact).unwrap();
            assert_close("mixed", values(&mixed), &expected, Tolerance::F32);
            assert!((sum.value().unwrap() - expected_sum).abs() <= 1e-6 * expected_sum);

            let [mut dfull, mut dsparse, mut dgate] = [&full, &full, &gate].map(zeros_like);
            for _ in 0..2 {
                let grads =
                    GatedPairGrads { dfull: &mut dfull, dsparse: &mut dsparse, dgate: &mut dgate };
                gated_pair_bwd(&dmixed, &pair, &alignment, 0.5, grads).unwrap();
            }
            let (edfull, edsparse, edgate) = reference::backward(&dmixed64, &exact, 0.5).unwrap();
            let twice =
                |values: Vec<f64>| values.into_iter().map(|value| 2.0 * value).collect::<Vec<_>>();
            assert_close("dfull", values(&dfull), &twice(edfull), Tolerance::F32);
            assert_close("dsparse", values(&dsparse), &twice(edsparse), Tolerance::F32);
            assert_close("dgate", values(&dgate), &twice(edgate), Tolerance::F32);
        }
    }
}

#[test]
fn reference_passes_gradcheck() {
    // With both directions pulled, both terms vary together and their gradients are those of the
    // sum as a whole only where each output is varied in its own term: so the gate and the output
    // are checked with the loss switched off, and the loss by the tests of the op it comes from.
    let mut random = Random::new(2);
    let [full, sparse, gate, dmixed] = [12, 12, 4, 12].map(|len| normal_f64(&mut random, len));
    let options = AlignmentOptions::default();
    for chosen in [AttentionMode::Full, AttentionMode::Sparse] {
        fn pair<'a>(
            [full, sparse, gate]: [&'a [f64]; 3],
            chosen: AttentionMode,
            options: &'a AlignmentOptions,
        ) -> reference::Pair<'a> {
            let valid = &[true; 2];
            reference::Pair { full, sparse, gate, head_dim: 3, chosen, gated: true, valid, options }
        }
        let (dfull, dsparse, dgate) =
            reference::backward(&dmixed, &pair([&full, &sparse, &gate], chosen, &options), 0.0)
                .unwrap();
        let loss = |full: &[f64], sparse: &[f64], gate: &[f64]| {
            dot(
                &reference::forward(&pair([full, sparse, gate], chosen, &options)).unwrap().0,
                &dmixed,
            )
        };
        assert_gradient("dfull", &full, &dfull, |full| loss(full, &sparse, &gate));
        assert_gradient("dsparse", &sparse, &dsparse, |sparse| loss(&full, sparse, &gate));
        assert_gradient("dgate", &gate, &dgate, |gate| loss(&full, &sparse, gate));
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let (options, good, gate) =
        (AlignmentOptions::default(), zeros([1, 2, 3, 4]), zeros([1, 2, 3]));
    let alignment = PairAlignment { options: &options, gated: true, valid: None };
    let run = |full: &Tensor, gate: &Tensor, alignment: &PairAlignment<'_>| {
        gated_pair_fwd(
            &GatedPair { full, sparse: &good, gate, chosen: AttentionMode::Full },
            alignment,
        )
    };
    run(&good, &gate, &alignment).unwrap();
    assert_refused(run(&zeros([1, 2, 4, 3]), &gate, &alignment), "pair.sparse");
    assert_refused(run(&good, &zeros([1, 3, 2]), &alignment), "pair.gate");
    let short = PairAlignment { valid: Some(&[true]), ..alignment };
    assert_refused(run(&good, &gate, &short), "valid");
}
