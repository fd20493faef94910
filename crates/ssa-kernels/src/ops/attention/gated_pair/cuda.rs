//! Gate and alignment loss of full and sparse attention on a GPU: whole tokens by block.

use half::bf16;

use super::{AttentionMode, GatedPair, GatedPairGrads, PairAlignment};
use crate::cuda::elementwise::{THREADS, sum};
use crate::cuda::{
    Buffer, Define, Gpu, Gradient, Input, Launch, Module, Output, RowLayout, constants, int,
    kernel, structs,
};
use crate::ops::attention::alignment::AlignmentKind;
use crate::{Result, Scalar, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "gated_pair",
    source: include_str!("gated_pair.cu"),
    headers: &[],
    constants: constants![THREADS],
    structs: structs![GatedPairFwd, GatedPairBwd],
    variants: &[
        &defines(20, true, true),
        &defines(64, true, false),
        &defines(64, false, false),
        &defines(128, true, false),
    ],
};

/// The most blocks that take tokens in turn, each with one partial sum: 16 on each of 132
/// multiprocessors. A constant, so that results do not depend on the card.
const BLOCKS: usize = 2112;

kernel! {
    /// The gated output that feeds the next layer, and partial sums of the alignment loss.
    "gated_pair_fwd" in MODULE:
    struct GatedPairFwd<'a> {
        full: Input<'a, bf16>,
        sparse: Input<'a, bf16>,
        gate: Input<'a, f32>,
        /// Which tokens count in the loss; all if null.
        valid: Option<Input<'a, u8>>,
        mixed: Output<'a, bf16>,
        partial: Output<'a, f64>,
        tokens: i64,
        heads: i32,
        /// Whether `mixed` is the sparse output: 0 or 1.
        takes_sparse: i32,
    }
}

kernel! {
    /// Adds to the gradients of both outputs and their gate.
    "gated_pair_bwd" in MODULE:
    struct GatedPairBwd<'a> {
        full: Input<'a, bf16>,
        sparse: Input<'a, bf16>,
        gate: Input<'a, f32>,
        dmixed: Input<'a, bf16>,
        valid: Option<Input<'a, u8>>,
        dfull: Gradient<'a, bf16>,
        dsparse: Gradient<'a, bf16>,
        dgate: Gradient<'a, f32>,
        tokens: i64,
        heads: i32,
        takes_sparse: i32,
        full_scale: f32,
        sparse_scale: f32,
    }
}

pub(super) fn forward(
    gpu: &Gpu,
    pair: &GatedPair<'_>,
    alignment: &PairAlignment<'_>,
) -> Result<(Tensor, Scalar)> {
    let [tokens, heads] = sizes(pair);
    let blocks = if heads > 0 { tokens.min(BLOCKS) } else { 0 };
    let mut partial = gpu.alloc(blocks)?;
    let valid = upload_valid(gpu, alignment.valid)?;
    let mut mixed = Tensor::for_output_like(pair.full, pair.full.shape())?;
    gpu.launch(
        Launch::new([blocks, 1, 1], THREADS).defines(&defines_of(pair, alignment)),
        GatedPairFwd {
            full: pair.full.input()?,
            sparse: pair.sparse.input()?,
            gate: pair.gate.input()?,
            valid: valid.as_ref().map(Buffer::input),
            mixed: mixed.output()?,
            partial: partial.output(),
            tokens: tokens as i64,
            heads: int("heads", heads)?,
            takes_sparse: takes_sparse(pair),
        },
    )?;
    Ok((mixed, Scalar::on_gpu(sum(gpu, &partial, alignment.options.terms())?)))
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
    let [full_scale, sparse_scale] =
        alignment.options.factors(scale).map(|factor| factor.unwrap_or(0.0));
    gpu.launch(
        Launch::new([tokens, 1, 1], THREADS).defines(&defines_of(pair, alignment)),
        GatedPairBwd {
            full: pair.full.input()?,
            sparse: pair.sparse.input()?,
            gate: pair.gate.input()?,
            dmixed: dmixed.input()?,
            valid: valid.as_ref().map(Buffer::input),
            dfull: grads.dfull.gradient()?,
            dsparse: grads.dsparse.gradient()?,
            dgate: grads.dgate.gradient()?,
            tokens: tokens as i64,
            heads: int("heads", heads)?,
            takes_sparse: takes_sparse(pair),
            full_scale,
            sparse_scale,
        },
    )
}

const fn defines(head_dim: usize, gated: bool, mse: bool) -> [Define; 5] {
    let [length, vec, lanes] = RowLayout::new(head_dim).defines("HEAD_DIM");
    [length, vec, lanes, ("GATED", gated as i64), ("MSE", mse as i64)]
}

fn defines_of(pair: &GatedPair<'_>, alignment: &PairAlignment<'_>) -> [Define; 5] {
    let mse = alignment.options.kind == AlignmentKind::Mse;
    defines(pair.full.last_dim(), alignment.gated, mse)
}

/// Tokens and heads.
fn sizes(pair: &GatedPair<'_>) -> [usize; 2] {
    [pair.gate.rows(), pair.gate.last_dim()]
}

/// Which tokens count, one byte each, on the GPU.
fn upload_valid(gpu: &Gpu, valid: Option<&[bool]>) -> Result<Option<Buffer<u8>>> {
    let bytes = |valid: &[bool]| valid.iter().map(|&valid| u8::from(valid)).collect::<Vec<_>>();
    valid.map(|valid| gpu.upload(&bytes(valid))).transpose()
}

fn takes_sparse(pair: &GatedPair<'_>) -> i32 {
    i32::from(pair.chosen == AttentionMode::Sparse)
}
