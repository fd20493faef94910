//! The norm on a GPU: one partial sum for each chunk of each tensor, then their sum.

use super::GradScale;
use crate::cuda::{Gpu, Module};
use crate::{Result, Scalar, Scalars, Tensor};

pub(crate) static MODULE: Module =
    Module { name: "grad_norm", source: include_str!("grad_norm.cu"), variants: &[&[]] };

/// Elements of a partial sum, as in the source.
const CHUNK: usize = 32_768;

/// The norm, and the factor that clips it to `max_norm` if it and all of `sums` are finite.
pub(super) fn norm_and_clip(
    gpu: &Gpu,
    grads: &[&Tensor],
    max_norm: f64,
    sums: &Scalars,
) -> Result<(Scalar, GradScale)> {
    let chunks = |grad: &Tensor| grad.len().div_ceil(CHUNK);
    let partials: usize = grads.iter().map(|grad| chunks(grad)).sum();
    let mut partial = gpu.alloc::<f64>(partials)?;
    let kernel = gpu.kernel(&MODULE, "grad_norm_partial", &[])?;
    let mut first = 0;
    for grad in grads {
        let launch = kernel.launch([chunks(grad), 1, 1], 256).input(grad).i64(grad.len());
        launch.buffer_mut(&mut partial).i64(first).run()?;
        first += chunks(grad);
    }
    let [mut norm, mut clip] = [gpu.alloc::<f64>(1)?, gpu.alloc::<f32>(1)?];
    let kernel = gpu.kernel(&MODULE, "grad_norm_finish", &[])?;
    let launch = kernel.launch([1, 1, 1], 1024).buffer(&partial).i64(partials).f64(max_norm);
    let launch = launch.optional(sums.buffer()).i64(sums.len());
    launch.buffer_mut(&mut norm).buffer_mut(&mut clip).run()?;
    Ok((Scalar::on_gpu(norm), GradScale::on_gpu(clip)))
}
