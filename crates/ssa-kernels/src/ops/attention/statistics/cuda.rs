//! Statistics on a GPU; the source explains its design.

use half::bf16;

use super::AttentionStatistics;
use crate::cuda::{
    Buffer, Define, Gpu, Input, Launch, Module, Output, WARP, constants, int, kernel, structs,
};
use crate::host_memory::{copied, zeros};
use crate::ops::attention::sparse::SparseAttention;
use crate::ops::attention::tiled::Visibility;
use crate::ops::attention::tiled::cuda::{entries, row_tiles};
use crate::{KernelError, Result};

pub(crate) static MODULE: Module = Module {
    name: "statistics",
    source: include_str!("statistics.cu"),
    headers: &[],
    constants: constants![WARPS, ROWS, KEYS, LARGEST_HEAD],
    structs: structs![ValueNorms, CompareAttention],
    variants: &[
        &Layout::new(1).defines(),
        &Layout::new(20).defines(),
        &Layout::new(64).defines(),
        &Layout::new(80).defines(),
        &Layout::new(128).defines(),
        &Layout::new(256).defines(),
    ],
};

/// Warps of a block of the kernels.
const WARPS: usize = 4;
/// Packed rows and keys of a tile.
const ROWS: usize = 32;
const KEYS: usize = 32;
/// The largest head.
const LARGEST_HEAD: usize = 256;
/// Fields of the statistics.
const FIELDS: usize = 7;

kernel! {
    /// `|v|` of every token and key/value head, a row each.
    "value_norms" in MODULE:
    struct ValueNorms<'a> {
        v: Input<'a, bf16>,
        norms: Output<'a, f64>,
        rows: i64,
    }
}

kernel! {
    /// All fields of every query.
    "attention_statistics" in MODULE:
    struct CompareAttention<'a> {
        q: Input<'a, bf16>,
        k: Input<'a, bf16>,
        v: Input<'a, bf16>,
        norms: Input<'a, f64>,
        indices: Input<'a, i32>,
        tiles: Input<'a, [i32; 4]>,
        /// `[FIELDS, rows]`.
        fields: Output<'a, f32>,
        rows: i64,
        kv_heads: i32,
        group_size: i32,
        block_size: i32,
        slots: i32,
        softmax_scale: f32,
    }
}

/// How the kernel cuts heads into slices and lays out shared memory: keys, a slice of values and
/// value norms in `f64`, then queries in `bf16`. At most 98.25 KiB, which every card has.
#[derive(Clone, Copy)]
struct Layout {
    head_dim: usize,
    /// The head in whole steps of products.
    padded: usize,
    slices: usize,
    /// Columns of a slice, at most 64.
    slice: usize,
}

impl Layout {
    const fn new(head_dim: usize) -> Self {
        let padded = head_dim.next_multiple_of(8);
        let slices = padded.div_ceil(64);
        Self { head_dim, padded, slices, slice: padded.div_ceil(slices).next_multiple_of(8) }
    }

    const fn k_stride(self) -> usize {
        self.padded + 4
    }

    const fn v_stride(self) -> usize {
        self.slice + 2
    }

    const fn q_stride(self) -> usize {
        self.padded + 8
    }

    const fn defines(self) -> [Define; 7] {
        [
            ("HEAD_DIM", self.head_dim as i64),
            ("PADDED", self.padded as i64),
            ("SLICES", self.slices as i64),
            ("SLICE", self.slice as i64),
            ("K_STRIDE", self.k_stride() as i64),
            ("V_STRIDE", self.v_stride() as i64),
            ("Q_STRIDE", self.q_stride() as i64),
        ]
    }

    fn shared_bytes(self) -> usize {
        let numbers = KEYS * (self.k_stride() + self.v_stride() + 1);
        numbers * size_of::<f64>() + ROWS * self.q_stride() * size_of::<bf16>()
    }
}

pub(super) fn compare(
    op: &'static str,
    gpu: &Gpu,
    call: &SparseAttention<'_>,
) -> Result<AttentionStatistics> {
    let &SparseAttention { q, k, v, block_indices, shape, softmax_scale } = call;
    if shape.head_dim > LARGEST_HEAD {
        let expected = format!("up to {LARGEST_HEAD} on a GPU");
        return Err(KernelError::value(op, "head_dim", expected, shape.head_dim));
    }
    let rows = shape.total_tokens() * shape.q_heads;
    if rows == 0 {
        return Ok(AttentionStatistics::default());
    }
    let visibility = Visibility::Tokens { window_size: usize::MAX };
    let tiles = row_tiles(gpu, block_indices.documents(), visibility, shape.group(), ROWS)?;
    let norms = value_norms(gpu, call)?;
    let indices = block_indices.on_gpu(op, gpu)?;
    let mut fields = gpu.alloc(FIELDS * rows)?;
    let layout = Layout::new(shape.head_dim);
    gpu.launch(
        Launch::new([entries(&tiles), shape.kv_heads, 1], WARPS * WARP)
            .shared(layout.shared_bytes())
            .defines(&layout.defines()),
        CompareAttention {
            q: q.input()?,
            k: k.input()?,
            v: v.input()?,
            norms: norms.input(),
            indices: indices.input(),
            tiles: tiles.groups(),
            fields: fields.output(),
            rows: rows as i64,
            kv_heads: int("kv_heads", shape.kv_heads)?,
            group_size: int("group_size", shape.group())?,
            block_size: int("block_size", block_indices.block_size())?,
            slots: int("slots", block_indices.block_counts())?,
            softmax_scale,
        },
    )?;
    read(&fields, rows)
}

/// `|v|` of every token and key/value head, `[N, H]`.
fn value_norms(gpu: &Gpu, call: &SparseAttention<'_>) -> Result<Buffer<f64>> {
    let rows = call.shape.total_tokens() * call.shape.kv_heads;
    let mut norms = gpu.alloc(rows)?;
    gpu.launch(
        Launch::new([rows.div_ceil(WARPS), 1, 1], WARPS * WARP)
            .defines(&Layout::new(call.shape.head_dim).defines()),
        ValueNorms { v: call.v.input()?, norms: norms.output(), rows: rows as i64 },
    )?;
    Ok(norms)
}

/// Copies all fields to the host in one go.
fn read(fields: &Buffer<f32>, rows: usize) -> Result<AttentionStatistics> {
    let mut values = zeros::<f32>(FIELDS * rows)?;
    fields.read(&mut values)?;
    let field = |index: usize| copied(&values[index * rows..(index + 1) * rows]);
    Ok(AttentionStatistics {
        sparsity: field(0)?,
        entropy_bits: field(1)?,
        dropped_mass: field(2)?,
        max_dropped_value_norm: field(3)?,
        distance: field(4)?,
        bound: field(5)?,
        identity_error: field(6)?,
    })
}
