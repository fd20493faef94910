//! Gate and alignment loss of the two streams on a GPU: whole tokens by block.

use super::{AttentionMode, GatedPair, GatedPairGrads, PairAlignment};
use crate::cuda::elementwise::{THREADS, sum};
use crate::cuda::{Gpu, Kernel, Module};
use crate::ops::attention::alignment::cuda::{BLOCKS, mse, upload_valid};
use crate::{Result, Scalar, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "gated_pair",
    source: include_str!("gated_pair.cu"),
    variants: &[
        &[("HEAD_DIM", 20), ("GATED", 1), ("MSE", 1)],
        &[("HEAD_DIM", 64), ("GATED", 1), ("MSE", 0)],
        &[("HEAD_DIM", 64), ("GATED", 0), ("MSE", 0)],
        &[("HEAD_DIM", 128), ("GATED", 1), ("MSE", 0)],
    ],
};

pub(super) fn forward(
    gpu: &Gpu,
    pair: &GatedPair<'_>,
    alignment: &PairAlignment<'_>,
) -> Result<(Tensor, Scalar)> {
    let [tokens, heads] = sizes(pair);
    let blocks = if heads > 0 { tokens.min(BLOCKS) } else { 0 };
    let mut partial = gpu.alloc::<f64>(blocks)?;
    let valid = upload_valid(gpu, alignment.valid)?;
    let mut mixed = Tensor::for_output_like(pair.full, pair.full.shape())?;
    let kernel = kernel(gpu, "gated_pair_fwd", pair, alignment)?;
    let launch = kernel.launch([blocks, 1, 1], THREADS).input(pair.full).input(pair.sparse);
    let launch = launch.input(pair.gate).optional(valid.as_ref()).i64(tokens).i32(heads);
    launch.i32(chosen(pair)).output(&mut mixed).buffer_mut(&mut partial).run()?;
    Ok((mixed, sum(gpu, &partial, blocks, alignment.options.terms())?))
}

pub(super) fn backward(
    gpu: &Gpu,
    dmixed: &Tensor,
    pair: &GatedPair<'_>,
    alignment: &PairAlignment<'_>,
    scale: f32,
    grads: GatedPairGrads<'_>,
) -> Result<()> {
    let [tokens, heads] = sizes(pair);
    if tokens == 0 || heads == 0 {
        return Ok(());
    }
    let valid = upload_valid(gpu, alignment.valid)?;
    let [full_factor, sparse_factor] =
        alignment.options.factors(scale).map(|factor| factor.unwrap_or(0.0));
    let kernel = kernel(gpu, "gated_pair_bwd", pair, alignment)?;
    let launch = kernel.launch([tokens, 1, 1], THREADS).input(dmixed).input(pair.full);
    let launch = launch.input(pair.sparse).input(pair.gate).optional(valid.as_ref()).i64(tokens);
    let launch = launch.i32(heads).i32(chosen(pair)).f32(full_factor).f32(sparse_factor);
    launch.accumulate(grads.dfull).accumulate(grads.dsparse).accumulate(grads.dgate).run()
}

fn kernel(
    gpu: &Gpu,
    name: &'static str,
    pair: &GatedPair<'_>,
    alignment: &PairAlignment<'_>,
) -> Result<Kernel> {
    let head_dim = pair.full.last_dim() as i64;
    let gated = i64::from(alignment.gated);
    gpu.kernel(
        &MODULE,
        name,
        &[("HEAD_DIM", head_dim), ("GATED", gated), mse(alignment.options.kind)],
    )
}

/// Tokens and heads.
fn sizes(pair: &GatedPair<'_>) -> [usize; 2] {
    [pair.gate.rows(), pair.gate.last_dim()]
}

fn chosen(pair: &GatedPair<'_>) -> usize {
    usize::from(pair.chosen == AttentionMode::Sparse)
}
