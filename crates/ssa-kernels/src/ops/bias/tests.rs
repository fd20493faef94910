use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::*;
use crate::ops::testing::{
    assert_refused, assert_same, dot, normal_f64, ones_like, plus_one, tensor, to_f64, values,
    with_threads, zeros,
};

/// B, T, O; the last two span several parallel chunks and partial sums.
const SHAPES: [[usize; 3]; 5] = [[1, 1, 1], [2, 3, 2], [1, 63, 17], [2, 100, 16], [3, 43, 256]];

fn backward(dout: &Tensor, width: usize) -> Tensor {
    let mut dbias = zeros([width]);
    bias_bwd(dout, &mut dbias).unwrap();
    dbias
}

#[test]
fn matches_the_reference() {
    for shape in SHAPES {
        let mut random = Random::new(1);
        let [x, dout] = [(); 2].map(|()| tensor(&mut random, shape));
        let bias = tensor(&mut random, [shape[2]]);
        let out = bias_fwd(x.try_clone().unwrap(), &bias).unwrap();
        assert_eq!(out.shape(), shape);
        let expected = reference::forward(&to_f64(&x), &to_f64(&bias)).unwrap();
        assert_close("out", values(&out), &expected, Tolerance::F32);
        let expected = reference::backward(&to_f64(&dout), shape[2]).unwrap();
        assert_close("dbias", values(&backward(&dout, shape[2])), &expected, Tolerance::F32);
    }
}

#[test]
fn the_reference_is_the_gradient() {
    let mut random = Random::new(2);
    let (x, dout) = (normal_f64(&mut random, 12), normal_f64(&mut random, 12));
    let bias = normal_f64(&mut random, 3);
    let loss = |bias: &[f64]| dot(&reference::forward(&x, bias).unwrap(), &dout);
    assert_gradient("dbias", &bias, &reference::backward(&dout, 3).unwrap(), loss);
}

#[test]
fn gradients_are_added() {
    let dout = tensor(&mut Random::new(3), [1, 70, 6]);
    let once = backward(&dout, 6);
    let mut dbias = ones_like(&once);
    bias_bwd(&dout, &mut dbias).unwrap();
    assert_close("dbias", values(&dbias), &plus_one(&once), Tolerance::F32);
}

#[test]
fn results_do_not_depend_on_threads() {
    let mut random = Random::new(4);
    let (x, bias) = (tensor(&mut random, [1, 900, 40]), tensor(&mut random, [40]));
    let run = |threads| {
        with_threads(threads, || {
            (bias_fwd(x.try_clone().unwrap(), &bias).unwrap(), backward(&x, 40))
        })
    };
    let ((one, done), (three, dthree)) = (run(1), run(3));
    assert_same(&one, &three);
    assert_same(&done, &dthree);
}

#[test]
fn no_rows_are_fine_and_other_widths_are_refused() {
    assert!(bias_fwd(zeros([1, 0, 4]), &zeros([4])).unwrap().is_empty());
    assert_same(&backward(&zeros([1, 0, 4]), 4), &zeros([4]));
    assert_refused(bias_fwd(zeros([1, 2, 4]), &zeros([3])), "bias");
    assert_refused(bias_bwd(&zeros([1, 2, 4]), &mut zeros([3])), "dbias");
}
