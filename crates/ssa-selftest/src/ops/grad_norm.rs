//! The norm of all gradients and the factor that clips them.

use ssa_kernels::ops::grad_norm::{clipped_grad_norm, grad_norm, reference};
use ssa_kernels::{Scalar, Scalars, Tensor};

use crate::{Context, Result};

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    context.case("six tensors");
    let mut grads = Vec::new();
    let mut exact = Vec::new();
    for len in [1, 3, 2048, 32_768, 32_769, 300_003] {
        let values = context.random().normal(len);
        exact.extend(values.iter().map(|&value| f64::from(value)));
        grads.push(context.f32_tensor(values, &[len])?);
    }
    let norm = grad_norm(&grads)?.value()?;
    context.compare_number("norm", norm, reference::norm(&exact), 1e-12);
    let (again, _) = clipped_grad_norm(&grads, 1.0, &Scalars::new(context.device()))?;
    context.check("norm, same bits", usize::from(norm.to_bits() != again.value()?.to_bits()));

    context.case("1e30, NaN and infinity");
    let large = context.f32_tensor(vec![3e30, 4e30], &[2])?;
    context.compare_number("large", grad_norm([&large])?.value()?, 5e30, 1e-6);
    for (value, what) in [(f32::NAN, "NaN"), (f32::INFINITY, "infinity")] {
        let mut values = vec![1.0; 5000];
        values[4321] = value;
        let bad: Tensor = context.f32_tensor(values, &[5000])?;
        let norm = grad_norm(grads.iter().chain([&bad]))?.value()?;
        let right = if value.is_nan() { norm.is_nan() } else { norm == f64::INFINITY };
        context.check(what, usize::from(!right));
    }

    context.case("100 numbers");
    let mut list = Scalars::new(context.device());
    for value in 0..100_u8 {
        list.push(&norm_of(context, f32::from(value))?)?;
    }
    let numbers = list.start_read()?.wait()?;
    let wrong = (0..100_u8).zip(&numbers).filter(|(value, number)| f64::from(*value) != **number);
    context.check("read in their order", wrong.count() + numbers.len().abs_diff(100));
    Ok(())
}

/// A scalar on the device with this magnitude.
pub(super) fn norm_of(context: &mut Context<'_>, value: f32) -> Result<Scalar> {
    grad_norm([&context.f32_tensor(vec![value], &[1])?])
}
