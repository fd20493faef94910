use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::*;
use crate::ops::testing::{
    assert_refused, assert_same, dot, normal_f64, ones_like, plus_one, tensor, to_f64, values,
    with_threads, zeros,
};

/// B, T, hidden; the last two end in a partial chunk of rows.
const SHAPES: [(usize, usize, usize); 5] =
    [(1, 1, 1), (2, 3, 2), (1, 63, 17), (1, 100, 64), (3, 43, 256)];
const EPS: f32 = 1e-5;

fn backward(dout: &Tensor, x: &Tensor, weight: &Tensor) -> (Tensor, Tensor) {
    let rstd = rms_norm_fwd(x, weight, EPS).unwrap().rstd;
    let [mut dx, mut dweight] =
        [Tensor::zeros_like(x).unwrap(), Tensor::zeros_like(weight).unwrap()];
    rms_norm_bwd(dout, x, weight, &rstd, &mut dx, &mut dweight).unwrap();
    (dx, dweight)
}

#[test]
fn matches_the_reference() {
    for (batch, tokens, hidden) in SHAPES {
        let mut random = Random::new(1);
        let [x, dout] = [(); 2].map(|()| tensor(&mut random, [batch, tokens, hidden]));
        let weight = tensor(&mut random, [hidden]);

        let output = rms_norm_fwd(&x, &weight, EPS).unwrap();
        let (dx, dweight) = backward(&dout, &x, &weight);

        assert_eq!(output.rstd.shape(), [batch, tokens]);
        let eps = f64::from(EPS);
        let (out, rstd) = reference::forward(&to_f64(&x), &to_f64(&weight), eps).unwrap();
        let (edx, edweight) =
            reference::backward(&to_f64(&dout), &to_f64(&x), &to_f64(&weight), eps).unwrap();
        assert_close("out", values(&output.out), &out, Tolerance::F32);
        assert_close("rstd", values(&output.rstd), &rstd, Tolerance::F32);
        // With one element per row dx is a difference of equals, as large as the rounding of rstd.
        assert_close("dx", values(&dx), &edx, Tolerance::F32);
        assert_close("dweight", values(&dweight), &edweight, Tolerance::F32);
    }
}

#[test]
fn a_row_of_zeros_stays_zero() {
    let x = zeros([1, 2, 5]);
    let output = rms_norm_fwd(&x, &Tensor::from_vec(vec![1.0; 5], [5]).unwrap(), EPS).unwrap();
    assert_same(&output.out, &x);
    assert!(values(&output.rstd).iter().all(|rstd| rstd.is_finite()));
}

#[test]
fn gradients_are_added() {
    let mut random = Random::new(2);
    let [x, dout] = [(); 2].map(|()| tensor(&mut random, [1, 70, 6]));
    let weight = tensor(&mut random, [6]);
    let (once_dx, once_dweight) = backward(&dout, &x, &weight);
    let rstd = rms_norm_fwd(&x, &weight, EPS).unwrap().rstd;
    let [mut dx, mut dweight] = [ones_like(&x), ones_like(&weight)];
    rms_norm_bwd(&dout, &x, &weight, &rstd, &mut dx, &mut dweight).unwrap();
    assert_close("dx", values(&dx), &plus_one(&once_dx), Tolerance::F32);
    assert_close("dweight", values(&dweight), &plus_one(&once_dweight), Tolerance::F32);
}

#[test]
fn gradients_do_not_depend_on_threads() {
    let mut random = Random::new(3);
    let [x, dout] = [(); 2].map(|()| tensor(&mut random, [1, 1000, 24]));
    let weight = tensor(&mut random, [24]);
    let run = |threads| with_threads(threads, || backward(&dout, &x, &weight));
    let ((dx, dweight), (expected_dx, expected_dweight)) = (run(1), run(5));
    assert_same(&dx, &expected_dx);
    assert_same(&dweight, &expected_dweight);
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(4);
    let [x, weight, dout] = [12, 4, 12].map(|len| normal_f64(&mut random, len));
    // A large eps, so that its part of the gradient counts.
    let (dx, dweight) = reference::backward(&dout, &x, &weight, 0.3).unwrap();
    let loss =
        |x: &[f64], weight: &[f64]| dot(&reference::forward(x, weight, 0.3).unwrap().0, &dout);
    assert_gradient("dx", &x, &dx, |x| loss(x, &weight));
    assert_gradient("dweight", &weight, &dweight, |weight| loss(&x, weight));
}

#[test]
fn no_rows_give_an_empty_result() {
    let [x, weight] = [zeros([0, 4, 3]), zeros([3])];
    assert!(rms_norm_fwd(&x, &weight, EPS).unwrap().out.is_empty());
    assert_same(&backward(&x, &x, &weight).1, &weight);
}

#[test]
fn wrong_shapes_are_refused() {
    let x = zeros([1, 2, 3]);
    assert_refused(rms_norm_fwd(&x, &zeros([4]), EPS), "weight");
    assert_refused(rms_norm_fwd(&x, &zeros([1, 3]), EPS), "weight");
    assert_refused(rms_norm_fwd(&zeros([2, 0]), &zeros([0]), EPS), "x");

    let [w, r] = [zeros([3]), zeros([1, 2])];
    let bwd = |dout: &[usize], rstd: &Tensor, dx: &[usize], dweight: &[usize]| {
        rms_norm_bwd(&zeros(dout), &x, &w, rstd, &mut zeros(dx), &mut zeros(dweight))
    };
    bwd(&[1, 2, 3], &r, &[1, 2, 3], &[3]).unwrap();
    assert_refused(bwd(&[1, 1, 3], &r, &[1, 2, 3], &[3]), "x");
    assert_refused(bwd(&[1, 2, 3], &zeros([2, 2]), &[1, 2, 3], &[3]), "rstd");
    assert_refused(bwd(&[1, 2, 3], &r, &[1, 2, 4], &[3]), "dx");
    assert_refused(bwd(&[1, 2, 3], &r, &[1, 2, 3], &[2]), "dweight");
}
