use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::*;
use crate::ops::testing::{
    assert_refused, assert_same, dot, normal_f64, ones_like, plus_one, tensor, to_f64, values,
    values_mut, with_threads, zeros,
};

/// Row counts and widths; the last spans several parallel chunks.
const SHAPES: [[usize; 3]; 4] = [[1, 1, 1], [1, 63, 17], [2, 100, 16], [1, 100, 688]];

fn backward(dout: &Tensor, gate: &Tensor, up: &Tensor) -> (Tensor, Tensor) {
    let [mut dgate, mut dup] = [Tensor::zeros_like(gate).unwrap(), Tensor::zeros_like(up).unwrap()];
    swiglu_bwd(dout, gate, up, &mut dgate, &mut dup).unwrap();
    (dgate, dup)
}

#[test]
fn matches_the_reference() {
    for shape in SHAPES {
        let mut random = Random::new(1);
        let [mut gate, up, dout] = [(); 3].map(|()| tensor(&mut random, shape));
        // Saturated on both sides as well as around zero.
        values_mut(&mut gate).iter_mut().step_by(5).for_each(|gate| *gate *= 60.0);

        let out = swiglu_fwd(&gate, &up).unwrap();
        let (dgate, dup) = backward(&dout, &gate, &up);

        let expected = reference::forward(&to_f64(&gate), &to_f64(&up)).unwrap();
        assert_close("out", values(&out), &expected, Tolerance::F32);
        let (edgate, edup) =
            reference::backward(&to_f64(&dout), &to_f64(&gate), &to_f64(&up)).unwrap();
        assert_close("dgate", values(&dgate), &edgate, Tolerance::F32);
        assert_close("dup", values(&dup), &edup, Tolerance::F32);
    }
}

#[test]
fn extremes_stay_finite_and_nan_stays_nan() {
    let gate = Tensor::from_vec(vec![-1e30, -200.0, 0.0, 200.0, 1e30, f32::NAN], [6]).unwrap();
    let ones = Tensor::from_vec(vec![1.0; 6], [6]).unwrap();
    let out = swiglu_fwd(&gate, &ones).unwrap();
    assert_eq!(values(&out)[..5], [0.0, 0.0, 0.0, 200.0, 1e30]);
    let (dgate, _) = backward(&ones, &gate, &ones);
    assert_eq!(values(&dgate)[..5], [0.0, 0.0, 0.5, 1.0, 1.0]);
    assert!(values(&out)[5].is_nan() && values(&dgate)[5].is_nan());
}

#[test]
fn gradients_are_added() {
    let mut random = Random::new(2);
    let [gate, up, dout] = [(); 3].map(|()| tensor(&mut random, [3, 35]));
    let (once_dgate, once_dup) = backward(&dout, &gate, &up);
    let [mut dgate, mut dup] = [ones_like(&gate), ones_like(&up)];
    swiglu_bwd(&dout, &gate, &up, &mut dgate, &mut dup).unwrap();
    assert_close("dgate", values(&dgate), &plus_one(&once_dgate), Tolerance::F32);
    assert_close("dup", values(&dup), &plus_one(&once_dup), Tolerance::F32);
}

#[test]
fn results_do_not_depend_on_threads() {
    let mut random = Random::new(3);
    let [gate, up, dout] = [(); 3].map(|()| tensor(&mut random, [50_000]));
    let run = |threads| {
        with_threads(threads, || (swiglu_fwd(&gate, &up).unwrap(), backward(&dout, &gate, &up)))
    };
    let ((out, (dgate, dup)), (expected_out, (expected_dgate, expected_dup))) = (run(1), run(5));
    assert_same(&out, &expected_out);
    assert_same(&dgate, &expected_dgate);
    assert_same(&dup, &expected_dup);
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(4);
    let [gate, up, dout] = [(); 3].map(|()| normal_f64(&mut random, 9));
    let (dgate, dup) = reference::backward(&dout, &gate, &up).unwrap();
    assert_gradient("dgate", &gate, &dgate, |gate| {
        dot(&reference::forward(gate, &up).unwrap(), &dout)
    });
    assert_gradient("dup", &up, &dup, |up| dot(&reference::forward(&gate, up).unwrap(), &dout));
}

#[test]
fn wrong_shapes_are_refused() {
    let [x, y] = [zeros([2, 3]), zeros([3, 2])];
    assert_refused(swiglu_fwd(&x, &y), "up");
    let bwd = |dout, up, mut dgate: Tensor, mut dup: Tensor| {
        swiglu_bwd(dout, &x, up, &mut dgate, &mut dup)
    };
    bwd(&x, &x, x.try_clone().unwrap(), x.try_clone().unwrap()).unwrap();
    assert_refused(bwd(&y, &x, x.try_clone().unwrap(), x.try_clone().unwrap()), "gate");
    assert_refused(bwd(&x, &y, x.try_clone().unwrap(), x.try_clone().unwrap()), "up");
    assert_refused(bwd(&x, &x, y.try_clone().unwrap(), x.try_clone().unwrap()), "dgate");
    assert_refused(bwd(&x, &x, x.try_clone().unwrap(), y.try_clone().unwrap()), "dup");
}
