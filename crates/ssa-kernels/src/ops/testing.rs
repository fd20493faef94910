//! Shorthands of the ops' unit tests.

use ssa_testkit::Random;

use crate::Tensor;

/// A tensor of standard normal values.
pub(crate) fn tensor<const R: usize>(random: &mut Random, shape: [usize; R]) -> Tensor {
    Tensor::from_vec(random.normal(shape.iter().product()), shape).unwrap()
}

/// The elements of a tensor in `f64`, for a reference.
pub(crate) fn to_f64(tensor: &Tensor) -> Vec<f64> {
    tensor.as_slice().iter().map(|&value| f64::from(value)).collect()
}

/// Standard normal values as the `f64` that an `f32` op would see.
pub(crate) fn normal_f64(random: &mut Random, len: usize) -> Vec<f64> {
    random.normal(len).iter().map(|&value| f64::from(value)).collect()
}

/// `sum_i a[i] b[i]`: the scalar loss whose gradient with respect to an output `a` is `b`.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What a gradient buffer that began with ones must hold where one of zeros holds `once`.
pub(crate) fn plus_one(once: &Tensor) -> Vec<f64> {
    to_f64(once).iter().map(|value| value + 1.0).collect()
}

/// Runs `f` in a pool of that many threads.
pub(crate) fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}
