use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::*;
use crate::ops::testing::{
    assert_refused, assert_same, dot, normal_f64, ones_like, plus_one, tensor, to_f64, values,
    with_threads, zeros,
};

const SHAPES: [(usize, usize, usize); 4] = [(1, 1, 1), (63, 17, 5), (100, 64, 96), (7, 3, 130)];

#[test]
fn matches_the_reference() {
    for (rows, inputs, outputs) in SHAPES {
        let mut random = Random::new(1);
        let x = tensor(&mut random, [rows, inputs]);
        let weight = tensor(&mut random, [outputs, inputs]);
        let dout = tensor(&mut random, [rows, outputs]);

        let out = linear_fwd(&x, &weight).unwrap();
        let mut dx = zeros([rows, inputs]);
        let mut dweight = zeros([outputs, inputs]);
        linear_bwd_input(&dout, &weight, &mut dx).unwrap();
        linear_bwd_weight(&dout, &x, &mut dweight).unwrap();

        let expected = reference::forward(&to_f64(&x), &to_f64(&weight), inputs).unwrap();
        let (edx, edweight) =
            reference::backward(&to_f64(&dout), &to_f64(&x), &to_f64(&weight), inputs).unwrap();
        assert_close("y", values(&out), &expected, Tolerance::F32);
        assert_close("dx", values(&dx), &edx, Tolerance::F32);
        assert_close("dweight", values(&dweight), &edweight, Tolerance::F32);
    }
}

#[test]
fn gradients_are_added() {
    let mut random = Random::new(2);
    let [dout, weight] = [tensor(&mut random, [4, 3]), tensor(&mut random, [3, 5])];
    let mut once = zeros([4, 5]);
    linear_bwd_input(&dout, &weight, &mut once).unwrap();
    let mut added = ones_like(&once);
    linear_bwd_input(&dout, &weight, &mut added).unwrap();
    assert_close("dx", values(&added), &plus_one(&once), Tolerance::F32);
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(3);
    let [x, weight, dout] = [6, 8, 12].map(|len| normal_f64(&mut random, len));
    let (dx, dweight) = reference::backward(&dout, &x, &weight, 2).unwrap();
    let loss = |x: &[f64], weight: &[f64]| dot(&reference::forward(x, weight, 2).unwrap(), &dout);
    assert_gradient("dx", &x, &dx, |x| loss(x, &weight));
    assert_gradient("dweight", &weight, &dweight, |weight| loss(&x, weight));
}

/// The product shares rows and columns among threads, never a sum: see the source of the `gemm`
/// crate, whose blocks of the inner axis depend on the sizes alone.
#[test]
fn results_do_not_depend_on_threads() {
    let mut random = Random::new(4);
    // One row, few rows, more outputs than rows, a long inner axis in several blocks.
    for (rows, inputs, outputs) in [(1, 700, 300), (33, 130, 65), (200, 3000, 90), (513, 96, 640)] {
        let x = tensor(&mut random, [rows, inputs]);
        let weight = tensor(&mut random, [outputs, inputs]);
        let dout = tensor(&mut random, [rows, outputs]);
        let run = |threads| {
            with_threads(threads, || {
                let [mut dx, mut dweight] =
                    [Tensor::zeros_like(&x).unwrap(), Tensor::zeros_like(&weight).unwrap()];
                linear_bwd_input(&dout, &weight, &mut dx).unwrap();
                linear_bwd_weight(&dout, &x, &mut dweight).unwrap();
                [linear_fwd(&x, &weight).unwrap(), dx, dweight]
            })
        };
        let expected = run(1);
        for threads in [2, 3, 7, 16] {
            run(threads).iter().zip(&expected).for_each(|(a, b)| assert_same(a, b));
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let x = zeros([2, 3]);
    assert_refused(linear_fwd(&x, &zeros([4, 2])), "weight");
    assert_refused(linear_fwd(&x, &zeros([4])), "weight");
    assert_refused(linear_fwd(&x, &zeros([0, 3])), "weight");
    assert_refused(linear_bwd_input(&x, &zeros([3, 5]), &mut zeros([1, 5])), "dx");
    assert_refused(linear_bwd_weight(&x, &zeros([1, 5]), &mut zeros([3, 5])), "x");
}
