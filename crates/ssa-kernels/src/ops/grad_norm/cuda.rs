//! The norm on a GPU: one partial sum for each chunk of each tensor, then their sum.

use super::GradScale;
use crate::cuda::elementwise::THREADS;
use crate::cuda::{Buffer, Gpu, Input, Launch, Module, Output, constants, kernel, structs};
use crate::{Result, Scalar, Scalars, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "grad_norm",
    source: include_str!("grad_norm.cu"),
    headers: &[],
    constants: constants![THREADS, CHUNK, FINISH_THREADS],
    structs: structs![GradNormPartial, GradNormFinish],
    variants: &[&[]],
};

/// Elements of a partial sum.
pub(super) const CHUNK: usize = 32_768;

/// Threads of the block that adds the partial sums.
const FINISH_THREADS: usize = 1024;

kernel! {
    /// The sums of squares of the chunks of a tensor.
    "grad_norm_partial" in MODULE:
    struct GradNormPartial<'a> {
        grad: Input<'a, f32>,
        partial: Output<'a, f64>,
        /// The partial sum of the tensor's first chunk.
        first: i64,
        len: i64,
    }
}

kernel! {
    /// The norm, and the factor that clips it.
    "grad_norm_finish" in MODULE:
    struct GradNormFinish<'a> {
        /// Absent without any gradient.
        partial: Option<Input<'a, f64>>,
        /// The losses of the step, which have to be finite.
        sums: Option<Input<'a, f64>>,
        norm: Output<'a, f64>,
        clip: Output<'a, f32>,
        partials: i64,
        sum_count: i64,
        max_norm: f64,
    }
}

/// The sums of squares of the chunks of all gradients.
pub(super) fn square_sums(gpu: &Gpu, grads: &[&Tensor]) -> Result<Scalars> {
    let chunks = |grad: &Tensor| grad.len().div_ceil(CHUNK);
    let partials: usize = grads.iter().map(|grad| chunks(grad)).sum();
    let mut partial = gpu.alloc(partials)?;
    let mut first = 0;
    for grad in grads {
        gpu.launch(
            Launch::new([chunks(grad), 1, 1], THREADS),
            GradNormPartial {
                grad: grad.input()?,
                partial: partial.output(),
                first: first as i64,
                len: grad.len() as i64,
            },
        )?;
        first += chunks(grad);
    }
    Ok(Scalars::on_gpu(gpu, partial, partials))
}

/// The norm, and the factor that clips it to `max_norm` if it and all of `sums` are finite.
pub(super) fn norm_and_clip(
    gpu: &Gpu,
    squares: &Scalars,
    max_norm: f64,
    sums: &Scalars,
) -> Result<(Scalar, GradScale)> {
    let (mut norm, mut clip) = (gpu.alloc(1)?, gpu.alloc(1)?);
    gpu.launch(
        Launch::new([1, 1, 1], FINISH_THREADS),
        GradNormFinish {
            partial: squares.buffer().map(Buffer::input),
            sums: sums.buffer().map(Buffer::input),
            norm: norm.output(),
            clip: clip.output(),
            partials: squares.len() as i64,
            sum_count: sums.len() as i64,
            max_norm,
        },
    )?;
    Ok((Scalar::on_gpu(norm), GradScale::on_gpu(clip)))
}
