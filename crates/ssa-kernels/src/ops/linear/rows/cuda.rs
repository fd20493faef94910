//! Linear maps of a few tokens on a GPU; the source explains the design.

use std::ops::Range;

use half::bf16;

use crate::cuda::matmul::{Rows, matmul};
use crate::cuda::{
    DEPENDENT_LAUNCH, Define, Gpu, Input, Launch, Module, Output, WARP, constants, int, kernel,
    structs,
};
use crate::ops::attention::headers;
use crate::{Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "linear_rows",
    source: include_str!("rows.cu"),
    headers: &[&DEPENDENT_LAUNCH, &headers::LANE_RING],
    constants: constants![WARPS, RING_BYTES, STORE, STORE_F32, ADD, SWIGLU],
    structs: structs![LinearRows],
    variants: &[
        &defines(20, STORE, 0, 1),
        &defines(2048, STORE, 0, 1),
        &defines(2048, STORE_F32, 1, 1),
        &defines(2048, STORE_F32, 1, 2),
        &defines(2048, SWIGLU, 1, 1),
        &defines(2048, SWIGLU, 1, 2),
        &defines(8192, ADD, 0, 1),
        &defines(8192, ADD, 0, 2),
    ],
};

/// Tokens of a call above which cuBLASLt takes over: the kernels read the weights again for every
/// 16 tokens.
pub(crate) const MOST_TOKENS: usize = 64;

/// Warps of a block of threads.
const WARPS: usize = 8;
/// Shared memory for weights that are on their way, of a block: two of them and the attention of
/// the step fit a multiprocessor of an H100.
const RING_BYTES: usize = 64 << 10;
/// Rows of a tile of weights, and tokens of a tile.
const ROWS: usize = 16;
const TOKENS: usize = 8;
/// Tiles of tokens that a block takes at once.
const MOST_TOKEN_TILES: usize = 2;

// What is done with the sums.
const STORE: i64 = 0;
const STORE_F32: i64 = 1;
const ADD: i64 = 2;
const SWIGLU: i64 = 3;

kernel! {
    /// `x Wᵀ` for a few rows of `x`, normalized first where `norm` is given.
    "linear_rows" in MODULE:
    struct LinearRows<'a> {
        /// `[tokens, INPUTS]`.
        x: Input<'a, bf16>,
        /// `[.., INPUTS]`.
        weight: Input<'a, bf16>,
        /// `[INPUTS]`.
        norm: Option<Input<'a, bf16>>,
        /// `[tokens, outputs]`.
        out: Option<Output<'a, bf16>>,
        /// `[tokens, outputs]`.
        out_f32: Option<Output<'a, f32>>,
        /// The first row of `weight`.
        first_row: i64,
        tokens: i32,
        /// For SwiGLU the rows of one half of `weight`.
        outputs: i32,
        eps: f32,
    }
}

/// What a product of a few rows is computed from.
#[derive(Clone)]
pub(crate) struct RowsProduct<'a> {
    /// `[.., I]`.
    pub(crate) x: &'a Tensor,
    /// `[.., I]`.
    pub(crate) weight: &'a Tensor,
    /// The rows of `weight` that are used.
    pub(crate) rows: Range<usize>,
    /// Weight and epsilon of an RMS norm of `x` that comes first.
    pub(crate) norm: Option<(&'a Tensor, f32)>,
}

/// Where the result of a product goes.
pub(crate) enum Destination<'a> {
    /// Overwrites `bf16`.
    Store(&'a mut Tensor),
    /// Overwrites `f32`.
    StoreF32(&'a mut Tensor),
    /// Is added to `bf16`.
    Add(&'a mut Tensor),
    /// The rows are those of a gate and as many of its input: overwrites with `silu(gate) * up`.
    SwiGlu(&'a mut Tensor),
}

impl RowsProduct<'_> {
    /// Queues the product.
    pub(crate) fn run(self, gpu: &Gpu, destination: Destination<'_>) -> Result<()> {
        let (tokens, inputs) = (self.x.rows(), self.x.last_dim());
        let token_tiles = tokens.div_ceil(TOKENS).clamp(1, MOST_TOKEN_TILES);
        let (epilogue, outputs, out, out_f32) = match destination {
            Destination::Store(out) => (STORE, self.rows.len(), Some(out.output()?), None),
            Destination::StoreF32(out) => (STORE_F32, self.rows.len(), None, Some(out.output()?)),
            Destination::Add(out) => (ADD, self.rows.len(), Some(out.in_place()?), None),
            Destination::SwiGlu(out) => (SWIGLU, self.rows.len() / 2, Some(out.output()?), None),
        };
        let defines = defines(inputs, epilogue, i64::from(self.norm.is_some()), token_tiles);
        // Blocks in excess of the multiprocessors share them: that evens out a few tiles, and costs
        // the next kernel its early start if there are many.
        let (tiles, processors) = (outputs.div_ceil(ROWS), gpu.properties().multiprocessors);
        let blocks = if tiles <= 2 * processors { tiles } else { processors };
        let groups = tokens.div_ceil(TOKENS * token_tiles);
        gpu.launch(
            Launch::new([blocks, groups, 1], WARPS * WARP)
                .shared(RING_BYTES)
                .defines(&defines)
                .overlapping(),
            LinearRows {
                x: self.x.input()?,
                weight: self.weight.input()?,
                norm: self.norm.map(|(weight, _)| weight.input()).transpose()?,
                out,
                out_f32,
                first_row: self.rows.start as i64,
                tokens: int("rows of x", tokens)?,
                outputs: int("O", outputs)?,
                eps: self.norm.map_or(0.0, |(_, eps)| eps),
            },
        )
    }
}

/// Writes the product with each of the stacked matrices.
pub(super) fn forward(gpu: &Gpu, x: &Tensor, matrix: &Tensor, out: &mut [Tensor]) -> Result<()> {
    let (tokens, inputs) = (x.rows(), x.last_dim());
    let mut first = 0;
    for out in out {
        let rows = first..first + out.last_dim();
        first = rows.end;
        if tokens <= MOST_TOKENS {
            let product = RowsProduct { x, weight: matrix, rows, norm: None };
            product.run(gpu, Destination::Store(out))?;
            continue;
        }
        let sizes = [tokens, rows.len()];
        let weight =
            Rows { offset: rows.start * inputs, sizes: [rows.len(), inputs], stride: inputs };
        let (x, weight) = (x.matrix([tokens, inputs])?, matrix.matrix(weight)?);
        matmul(gpu, out.output_matrix(sizes)?, 1.0, x, weight.t())?;
    }
    Ok(())
}

const fn defines(inputs: usize, epilogue: i64, norm: i64, token_tiles: usize) -> [Define; 4] {
    [
        ("INPUTS", inputs as i64),
        ("EPILOGUE", epilogue),
        ("NORM", norm),
        ("TOKEN_TILES", token_tiles as i64),
    ]
}
