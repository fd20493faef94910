use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::*;
use crate::ops::testing::{dot, normal_f64, tensor, to_f64};

const SHAPES: [(usize, usize, usize); 4] = [(1, 1, 1), (63, 17, 5), (100, 64, 96), (7, 3, 130)];

#[test]
fn matches_the_reference() {
    for (rows, inputs, outputs) in SHAPES {
        let mut random = Random::new(1);
        let x = tensor(&mut random, [rows, inputs]);
        let weight = tensor(&mut random, [outputs, inputs]);
        let dout = tensor(&mut random, [rows, outputs]);

        let out = linear_fwd(&x, &weight).unwrap();
        let mut dx = Tensor::zeros([rows, inputs]);
        let mut dweight = Tensor::zeros([outputs, inputs]);
        linear_bwd_input(&dout, &weight, &mut dx).unwrap();
        linear_bwd_weight(&dout, &x, &mut dweight).unwrap();

        let expected = reference::forward(&to_f64(&x), &to_f64(&weight), inputs);
        let (edx, edweight) =
            reference::backward(&to_f64(&dout), &to_f64(&x), &to_f64(&weight), inputs);
        assert_close("y", out.as_slice(), &expected, Tolerance::F32);
        assert_close("dx", dx.as_slice(), &edx, Tolerance::F32);
        assert_close("dweight", dweight.as_slice(), &edweight, Tolerance::F32);
    }
}

#[test]
fn gradients_are_added() {
    let mut random = Random::new(2);
    let [dout, weight] = [tensor(&mut random, [4, 3]), tensor(&mut random, [3, 5])];
    let mut once = Tensor::zeros([4, 5]);
    linear_bwd_input(&dout, &weight, &mut once).unwrap();
    let mut added = Tensor::zeros([4, 5]);
    added.fill(1.0);
    linear_bwd_input(&dout, &weight, &mut added).unwrap();
    let expected: Vec<f64> = to_f64(&once).iter().map(|value| value + 1.0).collect();
    assert_close("dx", added.as_slice(), &expected, Tolerance::F32);
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(3);
    let [x, weight, dout] = [6, 8, 12].map(|len| normal_f64(&mut random, len));
    let (dx, dweight) = reference::backward(&dout, &x, &weight, 2);
    let loss = |x: &[f64], weight: &[f64]| dot(&reference::forward(x, weight, 2), &dout);
    assert_gradient("dx", &x, &dx, |x| loss(x, &weight));
    assert_gradient("dweight", &weight, &dweight, |weight| loss(&x, weight));
}

#[test]
fn wrong_shapes_are_refused() {
    let x = Tensor::zeros([2, 3]);
    assert!(linear_fwd(&x, &Tensor::zeros([4, 2])).is_err());
    assert!(linear_fwd(&x, &Tensor::zeros([4])).is_err());
    assert!(linear_bwd_input(&x, &Tensor::zeros([3, 5]), &mut Tensor::zeros([1, 5])).is_err());
    assert!(linear_bwd_weight(&x, &Tensor::zeros([1, 5]), &mut Tensor::zeros([3, 5])).is_err());
}
