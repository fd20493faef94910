//! Helpers of the unit tests.

use ssa_testkit::Random;

use crate::{Result, Tensor};

/// A tensor of standard normal values.
pub(crate) fn tensor<const R: usize>(random: &mut Random, shape: [usize; R]) -> Tensor {
    Tensor::from_vec(random.normal(shape.iter().product()), shape).unwrap()
}

/// A tensor of zeros on the CPU.
pub(crate) fn zeros(shape: impl Into<Vec<usize>>) -> Tensor {
    Tensor::zeros(shape).unwrap()
}

/// A tensor of zeros like `other`.
pub(crate) fn zeros_like(other: &Tensor) -> Tensor {
    Tensor::zeros_like(other).unwrap()
}

/// A tensor of ones with the shape of `other`.
pub(crate) fn ones_like(other: &Tensor) -> Tensor {
    let mut ones = zeros_like(other);
    values_mut(&mut ones).fill(1.0);
    ones
}

/// The elements of a tensor on the CPU.
pub(crate) fn values(tensor: &Tensor) -> &[f32] {
    tensor.as_slice().unwrap()
}

/// The elements of a tensor on the CPU, writable.
pub(crate) fn values_mut(tensor: &mut Tensor) -> &mut [f32] {
    tensor.as_mut_slice().unwrap()
}

/// The elements of a tensor in `f64`, for a reference.
pub(crate) fn to_f64(tensor: &Tensor) -> Vec<f64> {
    values(tensor).iter().map(|&value| f64::from(value)).collect()
}

/// Standard normal values as the `f64` that an `f32` op would see.
pub(crate) fn normal_f64(random: &mut Random, len: usize) -> Vec<f64> {
    random.normal(len).iter().map(|&value| f64::from(value)).collect()
}

/// `sum_i a[i] b[i]`: the scalar loss whose gradient with respect to an output `a` is `b`.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The expected values of a gradient buffer that began with ones, given one that began with zeros.
pub(crate) fn plus_one(once: &Tensor) -> Vec<f64> {
    to_f64(once).iter().map(|value| value + 1.0).collect()
}

/// Runs `f` in a pool of that many threads.
pub(crate) fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

/// Asserts that two tensors have the same shape and elements.
#[track_caller]
pub(crate) fn assert_same(actual: &Tensor, expected: &Tensor) {
    assert_eq!(actual.shape(), expected.shape());
    assert_eq!(values(actual), values(expected));
}

/// Asserts that an op refused this argument.
#[track_caller]
pub(crate) fn assert_refused<R>(result: Result<R>, argument: &str) {
    match result {
        Ok(_) => panic!("`{argument}` was not refused"),
        Err(error) => assert_eq!(error.argument(), Some(argument), "{error}"),
    }
}
