use ssa_testkit::{Random, Tolerance, assert_close};

use super::*;
use crate::ops::testing::{tensor, to_f64, with_threads};

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
        let [mut m, mut v] = [(); 2].map(|()| Tensor::zeros([len]));
        let zeros = vec![0.0; len];
        let mut state = reference::State { param: to_f64(&param), m: zeros.clone(), v: zeros };
        for step in 1..=7 {
            // The learning rate moves as a schedule's does, and clipping comes and goes.
            let options = AdamwOptions { lr: OPTIONS.lr / step as f32, ..OPTIONS };
            let grad_scale = if step % 2 == 0 { 0.25 } else { 1.0 };
            let grad = tensor(&mut random, [len]);
            update(&mut param, &grad, &mut m, &mut v, &options, step, grad_scale).unwrap();
            reference::step(&mut state, &to_f64(&grad), &options, step, f64::from(grad_scale));
            assert_close("param", param.as_slice(), &state.param, Tolerance::F32);
            assert_close("m", m.as_slice(), &state.m, Tolerance::F32);
            assert_close("v", v.as_slice(), &state.v, Tolerance::F32);
        }
    }
}

#[test]
fn first_step_moves_by_the_learning_rate() {
    // m_hat = g and v_hat = g², so only the sign of the gradient counts; the rest is lr *
    // weight_decay.
    let mut param = Tensor::from_vec(vec![1.0, 1.0, 1.0], [3]).unwrap();
    let grad = Tensor::from_vec(vec![1e-3, -50.0, 0.0], [3]).unwrap();
    let [mut m, mut v] = [(); 2].map(|()| Tensor::zeros([3]));
    update(&mut param, &grad, &mut m, &mut v, &OPTIONS, 1, 1.0).unwrap();
    assert_close("param", param.as_slice(), &[0.999 - 0.01, 0.999 + 0.01, 0.999], Tolerance::F32);
}

#[test]
fn late_steps_need_no_correction() {
    let mut param = Tensor::zeros([1]);
    let [grad, mut m, mut v] = [(); 3].map(|()| Tensor::from_vec(vec![1.0], [1]).unwrap());
    update(&mut param, &grad, &mut m, &mut v, &OPTIONS, u64::MAX, 1.0).unwrap();
    assert_close("param", param.as_slice(), &[-0.01], Tolerance::F32);
}

#[test]
fn results_do_not_depend_on_threads() {
    let mut random = Random::new(2);
    let [start, grad] = [(); 2].map(|()| tensor(&mut random, [100_000]));
    let run = |threads| {
        let [mut param, mut m, mut v] =
            [start.clone(), Tensor::zeros([100_000]), Tensor::zeros([100_000])];
        with_threads(threads, || {
            update(&mut param, &grad, &mut m, &mut v, &OPTIONS, 1, 1.0).unwrap()
        });
        (param, m, v)
    };
    assert_eq!(run(1), run(5));
}

#[test]
fn wrong_arguments_are_refused() {
    let run = |shapes: [usize; 3], options: AdamwOptions, step| {
        let [grad, mut m, mut v] = shapes.map(|len| Tensor::zeros([len]));
        update(&mut Tensor::zeros([4]), &grad, &mut m, &mut v, &options, step, 1.0)
    };
    assert!(run([4; 3], OPTIONS, 1).is_ok());
    for shapes in [[3, 4, 4], [4, 3, 4], [4, 4, 3]] {
        assert!(run(shapes, OPTIONS, 1).is_err());
    }
    assert!(run([4; 3], OPTIONS, 0).is_err());
    for beta in [1.0, -0.1, f32::NAN] {
        assert!(run([4; 3], AdamwOptions { beta1: beta, ..OPTIONS }, 1).is_err());
        assert!(run([4; 3], AdamwOptions { beta2: beta, ..OPTIONS }, 1).is_err());
    }
}

#[test]
fn a_scale_that_is_not_finite_changes_nothing() {
    let grad = Tensor::from_vec(vec![1.0], [1]).unwrap();
    for scale in [f32::NAN, f32::INFINITY] {
        let [mut param, mut m, mut v] = [(); 3].map(|()| Tensor::from_vec(vec![0.5], [1]).unwrap());
        update(&mut param, &grad, &mut m, &mut v, &OPTIONS, 1, scale).unwrap();
        assert!([param, m, v].iter().all(|tensor| tensor.as_slice() == [0.5]));
    }
}

#[test]
fn on_the_cpu_a_weight_is_its_master() {
    let weight = Tensor::from_vec(vec![0.1, -3.0], [2]).unwrap();
    let (param, residue) = split_master(&weight).unwrap();
    assert!(residue.is_none());
    assert_eq!(join_master(&param, residue.as_ref()).unwrap(), weight);
    assert!(join_master(&param, Some(&weight)).is_err());
}
