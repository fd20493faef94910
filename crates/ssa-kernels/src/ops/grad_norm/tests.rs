use ssa_testkit::Random;

use super::*;
use crate::ops::testing::{tensor, to_f64, values_mut, with_threads, zeros};

fn norm_of<'a>(grads: impl IntoIterator<Item = &'a Tensor>) -> f64 {
    grad_norm(grads).unwrap().value().unwrap()
}

fn sums(values: &[f64]) -> Scalars {
    let mut sums = Scalars::new(&Device::Cpu);
    values.iter().for_each(|&value| sums.push(&Scalar::new(value)).unwrap());
    sums
}

#[test]
fn matches_the_reference() {
    let mut random = Random::new(1);
    // One block, several, and a partial one; an empty tensor adds nothing.
    let grads = [1, 63, 0, 1000, 100_000].map(|len| tensor(&mut random, [len]));
    let all: Vec<f64> = grads.iter().flat_map(to_f64).collect();
    let (norm, expected) = (norm_of(&grads), reference::norm(&all));
    assert!((norm / expected - 1.0).abs() < 1e-12, "{norm} instead of {expected}");
    assert_eq!(norm_of([]), 0.0);
}

#[test]
fn large_values_do_not_overflow() {
    let grad = Tensor::from_vec(vec![3e30, 4e30], [2]).unwrap();
    assert!((norm_of([&grad]) / f64::from(5e30_f32) - 1.0).abs() < 1e-6);
}

#[test]
fn nan_and_infinity_propagate() {
    for index in [0, 17, 99] {
        let mut grad = zeros([100]);
        values_mut(&mut grad)[index] = f32::NEG_INFINITY;
        assert_eq!(norm_of([&grad]), f64::INFINITY);
        values_mut(&mut grad)[index] = f32::NAN;
        assert!(norm_of([&grad]).is_nan());
    }
}

#[test]
fn norm_does_not_depend_on_threads() {
    let mut random = Random::new(2);
    let grads = [70_000, 5, 90_001].map(|len| tensor(&mut random, [len]));
    let run = |threads| with_threads(threads, || norm_of(&grads));
    assert_eq!(run(1), run(5));
}

#[test]
fn clipping_only_shrinks() {
    assert_eq!(clip_factor(0.0, 1.0), 1.0);
    assert_eq!(clip_factor(0.5, 1.0), 1.0);
    assert_eq!(clip_factor(4.0, 1.0), (1.0 / 4.000_001) as f32);
    assert_eq!(clip_factor(f64::INFINITY, 1.0), 0.0);
    assert!(clip_factor(f64::NAN, 1.0).is_nan());
}

#[test]
fn the_factor_clips_a_finite_norm_only() {
    let grad = Tensor::from_vec(vec![3.0, 4.0], [2]).unwrap();
    for max_norm in [1.0, 10.0] {
        let (norm, scale) = clipped_grad_norm([&grad], max_norm, &sums(&[1.0])).unwrap();
        assert_eq!(norm.value().unwrap(), 5.0);
        assert_eq!(scale.known(), Some(clip_factor(5.0, max_norm)));
    }
    let infinite = Tensor::from_vec(vec![f32::INFINITY], [1]).unwrap();
    let (_, scale) = clipped_grad_norm([&infinite], 1.0, &sums(&[])).unwrap();
    assert!(scale.known().is_some_and(f32::is_nan));
}

#[test]
fn a_loss_that_is_not_finite_makes_the_factor_nan() {
    let grad = Tensor::from_vec(vec![3.0, 4.0], [2]).unwrap();
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let (norm, scale) = clipped_grad_norm([&grad], 1.0, &sums(&[2.0, bad, 3.0])).unwrap();
        assert_eq!(norm.value().unwrap(), 5.0);
        assert!(scale.known().is_some_and(f32::is_nan), "{bad}");
    }
}
