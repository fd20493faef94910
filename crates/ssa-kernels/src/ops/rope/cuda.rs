//! The rotation on a GPU.

use half::bf16;

use super::RopeTable;
use crate::cuda::elementwise::THREADS;
use crate::cuda::{
    Define, Gpu, Input, Launch, Module, Output, RowLayout, constants, int, kernel, structs,
};
use crate::{Result, Sequences, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "rope",
    source: include_str!("rope.cu"),
    headers: &[],
    constants: constants![THREADS],
    structs: structs![Rope],
    variants: &[&defines(6), &defines(64), &defines(128)],
};

kernel! {
    /// Rotates every head in place.
    "rope" in MODULE:
    struct Rope<'a> {
        x: Output<'a, bf16>,
        table: Input<'a, f32>,
        /// For every token the number of the first token of its sequence: less than 0 if that token
        /// is not part of the call.
        origin: Input<'a, i32>,
        tokens: i64,
        /// Rows of the table.
        positions: i64,
        heads: i32,
        tokens_per_block: i32,
        sign: f32,
    }
}

/// `sign` is 1 forward and -1 backward.
pub(super) fn rotate(
    gpu: &Gpu,
    x: &mut Tensor,
    sequences: &Sequences,
    table: &RopeTable,
    sign: f32,
) -> Result<()> {
    let (tokens, heads, head_dim) = (sequences.total_tokens(), x.shape()[2], table.head_dim());
    let vectors = RowLayout::new(head_dim / 2).vectors();
    let tokens_per_block = (THREADS / (heads * vectors)).max(1);
    let (angles, origins) = (table.device(gpu)?, sequences.device_origins(gpu)?);
    gpu.launch(
        Launch::new([tokens.div_ceil(tokens_per_block), 1, 1], THREADS).defines(&defines(head_dim)),
        Rope {
            x: x.in_place()?,
            table: angles.input(),
            origin: origins.input(),
            tokens: tokens as i64,
            positions: table.positions() as i64,
            heads: int("heads", heads)?,
            tokens_per_block: int("tokens_per_block", tokens_per_block)?,
            sign,
        },
    )
}

const fn defines(head_dim: usize) -> [Define; 2] {
    [("HEAD_DIM", head_dim as i64), ("ROW_VEC", RowLayout::new(head_dim / 2).vec() as i64)]
}
