use ssa_testkit::{Random, Tolerance, assert_close};

use super::*;
use crate::ops::testing::{
    assert_refused, assert_same, tensor, to_f64, values, with_threads, zeros,
};

const OPTIONS: AdamwOptions =
    AdamwOptions { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

fn update(
    param: &mut Tensor,
    grad: &Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
    options: &AdamwOptions,
    step: u64,
    grad_scale: f32,
) -> Result<()> {
    adamw_step(param, None, grad, Moments { m, v }, options, step, &GradScale::new(grad_scale))
}

#[test]
fn matches_the_reference_over_several_steps() {
    for len in [1, 63, 1000, 40_000] {
        let mut random = Random::new(1);
        let mut param = tensor(&mut random, [len]);
        let [mut m, mut v] = [(); 2].map(|()| zeros([len]));
        let mut state =
            reference::State { param: to_f64(&param), m: vec![0.0; len], v: vec![0.0; len] };
        for step in 1..=7 {
            // The learning rate moves as a schedule's does, and clipping comes and goes.
            let options = AdamwOptions { lr: OPTIONS.lr / step as f32, ..OPTIONS };
            let grad_scale = if step % 2 == 0 { 0.25 } else { 1.0 };
            let grad = tensor(&mut random, [len]);
            update(&mut param, &grad, &mut m, &mut v, &options, step, grad_scale).unwrap();
            reference::step(&mut state, &to_f64(&grad), &options, step, f64::from(grad_scale))
                .unwrap();
            assert_close("param", values(&param), &state.param, Tolerance::F32);
            assert_close("m", values(&m), &state.m, Tolerance::F32);
            assert_close("v", values(&v), &state.v, Tolerance::F32);
        }
    }
}

#[test]
fn first_step_moves_by_the_learning_rate() {
    // m_hat = g and v_hat = g², so only the sign of the gradient counts; the rest is lr *
    // weight_decay.
    let mut param = Tensor::from_vec(vec![1.0, 1.0, 1.0], [3]).unwrap();
    let grad = Tensor::from_vec(vec![1e-3, -50.0, 0.0], [3]).unwrap();
    let [mut m, mut v] = [(); 2].map(|()| zeros([3]));
    update(&mut param, &grad, &mut m, &mut v, &OPTIONS, 1, 1.0).unwrap();
    assert_close("param", values(&param), &[0.999 - 0.01, 0.999 + 0.01, 0.999], Tolerance::F32);
}

#[test]
fn late_steps_need_no_correction() {
    let mut param = zeros([1]);
    let [grad, mut m, mut v] = [(); 3].map(|()| Tensor::from_vec(vec![1.0], [1]).unwrap());
    update(&mut param, &grad, &mut m, &mut v, &OPTIONS, u64::MAX, 1.0).unwrap();
    assert_close("param", values(&param), &[-0.01], Tolerance::F32);
}

#[test]
fn results_do_not_depend_on_threads() {
    let mut random = Random::new(2);
    let [start, grad] = [(); 2].map(|()| tensor(&mut random, [100_000]));
    let run = |threads| {
        let [mut param, mut m, mut v] =
            [start.try_clone().unwrap(), zeros([100_000]), zeros([100_000])];
        with_threads(threads, || {
            update(&mut param, &grad, &mut m, &mut v, &OPTIONS, 1, 1.0).unwrap()
        });
        [param, m, v]
    };
    run(1).iter().zip(&run(5)).for_each(|(a, b)| assert_same(a, b));
}

#[test]
fn wrong_arguments_are_refused() {
    let run = |shapes: [usize; 3], options: AdamwOptions, step| {
        let [grad, mut m, mut v] = shapes.map(|len| zeros([len]));
        update(&mut zeros([4]), &grad, &mut m, &mut v, &options, step, 1.0)
    };
    run([4; 3], OPTIONS, 1).unwrap();
    for (shapes, argument) in [([3, 4, 4], "grad"), ([4, 3, 4], "m"), ([4, 4, 3], "v")] {
        assert_refused(run(shapes, OPTIONS, 1), argument);
    }
    assert_refused(run([4; 3], OPTIONS, 0), "step");
    for beta in [1.0, -0.1, f32::NAN] {
        assert_refused(run([4; 3], AdamwOptions { beta1: beta, ..OPTIONS }, 1), "beta1");
        assert_refused(run([4; 3], AdamwOptions { beta2: beta, ..OPTIONS }, 1), "beta2");
    }
}

#[test]
fn a_scale_that_is_not_finite_changes_nothing() {
    let grad = Tensor::from_vec(vec![1.0], [1]).unwrap();
    for scale in [f32::NAN, f32::INFINITY] {
        let [mut param, mut m, mut v] = [(); 3].map(|()| Tensor::from_vec(vec![0.5], [1]).unwrap());
        update(&mut param, &grad, &mut m, &mut v, &OPTIONS, 1, scale).unwrap();
        assert!([param, m, v].iter().all(|tensor| values(tensor) == [0.5]));
    }
}

#[test]
fn on_the_cpu_a_weight_is_its_master() {
    let weight = Tensor::from_vec(vec![0.1, -3.0], [2]).unwrap();
    let (param, residue) = split_master(&weight).unwrap();
    assert!(residue.is_none());
    assert_same(&join_master(&param, residue.as_ref()).unwrap(), &weight);
    assert_refused(join_master(&param, Some(&weight)), "residue");
}
