//! The bias on a GPU.

use half::bf16;

use crate::cuda::elementwise::THREADS;
use crate::cuda::{Gpu, Gradient, Input, Launch, Module, Output, constants, int, kernel, structs};
use crate::{Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "bias",
    source: include_str!("bias.cu"),
    headers: &[],
    constants: constants![THREADS],
    structs: structs![BiasFwd, BiasPartial, BiasSum],
    variants: &[&[]],
};

/// The most partial sums of a column. A constant, so that results do not depend on the card.
const PARTIALS: usize = 256;

kernel! {
    /// `x += bias` for every row.
    "bias_fwd" in MODULE:
    struct BiasFwd<'a> {
        x: Output<'a, bf16>,
        bias: Input<'a, bf16>,
        width: i32,
        len: i64,
    }
}

kernel! {
    /// Sums of every `partials`-th row.
    "bias_partial" in MODULE:
    struct BiasPartial<'a> {
        dout: Input<'a, bf16>,
        partial: Output<'a, f32>,
        width: i32,
        partials: i32,
        rows: i64,
    }
}

kernel! {
    /// Adds the partial sums to `dbias`.
    "bias_sum" in MODULE:
    struct BiasSum<'a> {
        partial: Input<'a, f32>,
        dbias: Gradient<'a, f32>,
        width: i32,
        partials: i32,
    }
}

pub(super) fn forward(gpu: &Gpu, x: &mut Tensor, bias: &Tensor) -> Result<()> {
    let width = int("width", bias.len())?;
    gpu.launch_pieces(x.len(), |len| {
        Ok(BiasFwd { x: x.in_place()?, bias: bias.input()?, width, len })
    })
}

pub(super) fn backward(gpu: &Gpu, dout: &Tensor, dbias: &mut Tensor) -> Result<()> {
    let (rows, columns) = (dout.rows(), dbias.len());
    if rows == 0 {
        return Ok(());
    }
    let count = rows.min(PARTIALS);
    let mut partial = gpu.alloc(count * columns)?;
    let [width, partials] = [int("width", columns)?, int("partials", count)?];
    let blocks = columns.div_ceil(THREADS);
    gpu.launch(
        Launch::new([blocks, count, 1], THREADS),
        BiasPartial {
            dout: dout.input()?,
            partial: partial.output(),
            width,
            partials,
            rows: rows as i64,
        },
    )?;
    gpu.launch(
        Launch::new([blocks, 1, 1], THREADS),
        BiasSum { partial: partial.input(), dbias: dbias.gradient()?, width, partials },
    )
}
