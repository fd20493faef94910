use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::*;
use crate::Documents;
use crate::ops::testing::{
    assert_refused, assert_same, dot, normal_f64, tensor, to_f64, values, with_threads, zeros,
};

/// B, T, heads, D.
const SHAPES: [(usize, usize, usize, usize); 5] =
    [(1, 1, 1, 2), (2, 63, 3, 6), (1, 100, 16, 16), (3, 7, 1, 64), (1, 70, 4, 128)];
const THETA: f64 = 500_000.0;

fn table(head_dim: usize) -> RopeTable {
    RopeTable::new(head_dim, THETA, &RopeScaling::None, 100).unwrap()
}

fn inverse_frequencies(scaling: &RopeScaling, head_dim: usize) -> Vec<f64> {
    scaling.inverse_frequencies(head_dim, THETA).collect()
}

#[test]
fn matches_the_reference() {
    for (batch, tokens, heads, head_dim) in SHAPES {
        let mut random = Random::new(1);
        let x = tensor(&mut random, [batch, tokens, heads, head_dim]);
        // Rows of their own, then documents of 1 to 9 tokens.
        let packed = Documents::from_cu_seqlens(random.cu_seqlens(batch * tokens, 9)).unwrap();
        for documents in [Documents::rows(batch, tokens).unwrap(), packed] {
            let [mut out, mut dx] = [x.try_clone().unwrap(), x.try_clone().unwrap()];
            rope_fwd(&mut out, &documents, &table(head_dim)).unwrap();
            rope_bwd(&mut dx, &documents, &table(head_dim)).unwrap();

            let (positions, inv_freq) = (
                documents.positions().collect::<Vec<_>>(),
                inverse_frequencies(&RopeScaling::None, head_dim),
            );
            let expected = reference::forward(&to_f64(&x), &positions, heads, &inv_freq).unwrap();
            assert_close("out", values(&out), &expected, Tolerance::F32);
            let expected = reference::backward(&to_f64(&x), &positions, heads, &inv_freq).unwrap();
            assert_close("dx", values(&dx), &expected, Tolerance::F32);
        }
    }
}

#[test]
fn pairs_are_halves_of_a_head() {
    // Position 1, first frequency 1: the pair is elements 0 and 2, not 0 and 1.
    let mut x =
        Tensor::from_vec(vec![0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [1, 2, 1, 4]).unwrap();
    rope_fwd(&mut x, &Documents::rows(1, 2).unwrap(), &table(4)).unwrap();
    let expected = [0.0, 0.0, 0.0, 0.0, 1f64.cos(), 0.0, 1f64.sin(), 0.0];
    assert_close("out", values(&x), &expected, Tolerance::F32);
}

#[test]
fn backward_undoes_forward() {
    let mut random = Random::new(2);
    let x = tensor(&mut random, [2, 50, 3, 16]);
    let documents = Documents::from_cu_seqlens(vec![0, 1, 50, 77, 100]).unwrap();
    let mut back = x.try_clone().unwrap();
    rope_fwd(&mut back, &documents, &table(16)).unwrap();
    rope_bwd(&mut back, &documents, &table(16)).unwrap();
    assert_close("x", values(&back), &to_f64(&x), Tolerance::F32);
}

#[test]
fn results_do_not_depend_on_threads() {
    let x = tensor(&mut Random::new(3), [4, 100, 4, 64]);
    let run = |threads| {
        let mut x = x.try_clone().unwrap();
        with_threads(threads, || {
            rope_fwd(&mut x, &Documents::rows(4, 100).unwrap(), &table(64)).unwrap()
        });
        x
    };
    assert_same(&run(1), &run(5));
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(4);
    let [x, dout] = [24, 24].map(|len| normal_f64(&mut random, len));
    let (positions, inv_freq) = ([0, 3, 50], [1.0, 0.3]);
    let dx = reference::backward(&dout, &positions, 2, &inv_freq).unwrap();
    assert_gradient("dx", &x, &dx, |x| {
        dot(&reference::forward(x, &positions, 2, &inv_freq).unwrap(), &dout)
    });
}

/// Values of an independent computation with the three branches of the Hugging Face function.
#[test]
fn llama3_scaling_is_that_of_hugging_face() {
    let scaling = RopeScaling::Llama3 {
        factor: 4.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let scaled = inverse_frequencies(&scaling, 64);
    let plain = inverse_frequencies(&RopeScaling::None, 64);
    let expected = [
        (1, 0.663_601_237_696_088_5),
        (14, 0.003_211_445_994_752_591_3),
        (15, 0.001_480_354_420_496_970_7),
        (16, 0.000_651_898_646_904_403_2),
        (17, 0.000_287_074_392_423_622_63),
        (18, 0.000_155_693_105_478_649),
        (31, 7.534645380347927e-07),
    ];
    for (pair, frequency) in expected {
        let error = (scaled[pair] / frequency - 1.0).abs();
        assert!(error < 1e-12, "pair {pair}: {} instead of {frequency}", scaled[pair]);
    }
    assert_eq!(scaled[0], 1.0);
    assert_eq!(scaled[31], plain[31] / 4.0);
}

#[test]
fn wrong_arguments_are_refused() {
    let new = |head_dim, theta, scaling: &RopeScaling| RopeTable::new(head_dim, theta, scaling, 8);
    assert_refused(new(0, THETA, &RopeScaling::None), "head_dim");
    assert_refused(new(3, THETA, &RopeScaling::None), "head_dim");
    assert_refused(new(4, 0.0, &RopeScaling::None), "theta");
    assert_refused(new(4, f64::NAN, &RopeScaling::None), "theta");
    for (head_dim, positions) in [(usize::MAX - 1, 0), (4, usize::MAX), (1 << 40, 1 << 40)] {
        let table = RopeTable::new(head_dim, THETA, &RopeScaling::None, positions);
        assert_refused(table, "positions");
    }
    let llama3 = |factor, low_freq_factor, high_freq_factor, original_max_position_embeddings| {
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        }
    };
    new(4, THETA, &llama3(4.0, 1.0, 4.0, 8192)).unwrap();
    for (bad, argument) in [
        (llama3(0.0, 1.0, 4.0, 8), "factor"),
        (llama3(4.0, 0.0, 4.0, 8), "low_freq_factor"),
        (llama3(4.0, 4.0, 4.0, 8), "high_freq_factor"),
        (llama3(4.0, 1.0, 4.0, 0), "original_max_position_embeddings"),
    ] {
        assert_refused(new(4, THETA, &bad), argument);
    }

    let table = new(4, THETA, &RopeScaling::None).unwrap();
    let forward =
        |shape: &[usize], documents: &Documents| rope_fwd(&mut zeros(shape), documents, &table);
    let backward =
        |shape: &[usize], documents: &Documents| rope_bwd(&mut zeros(shape), documents, &table);
    let lengths = |lengths: Vec<usize>| Documents::from_cu_seqlens(lengths).unwrap();
    for (shape, documents) in [
        (&[1, 8, 2, 4], Documents::rows(1, 8).unwrap()),
        (&[0, 8, 2, 4], Documents::rows(0, 8).unwrap()),
        (&[1, 9, 2, 4], lengths(vec![0, 8, 9])),
    ] {
        forward(shape, &documents).unwrap();
        backward(shape, &documents).unwrap();
    }
    let rows = |tokens| Documents::rows(1, tokens).unwrap();
    for shape in [&[8, 2, 4][..], &[1, 8, 2, 6], &[1, 8, 0, 4]] {
        assert_refused(forward(shape, &rows(8)), "x");
        assert_refused(backward(shape, &rows(8)), "dx");
    }
    for (shape, documents) in [(&[1, 8, 2, 4], rows(7)), (&[1, 9, 2, 4], rows(9))] {
        assert_refused(forward(shape, &documents), "sequences");
        assert_refused(backward(shape, &documents), "sequences");
    }
}
