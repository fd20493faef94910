//! The kernels and their parameters.
//!
//! The kernels of warps take their parameters by value, so that the compiler sees the fields as
//! separate arguments and has shorter loops; those of warpgroups as `__grid_constant__`, which
//! leaves the fields in constant memory and saves registers (the forward at D 64: 120 instead of
//! 126).

use half::bf16;

use super::tile::{
    FORWARD_64, FORWARD_128, FORWARD_SM90_64, FORWARD_SM90_128, KEYS_64, KEYS_128, KEYS_SM90_64,
    QUERIES_64, QUERIES_128, QUERIES_SM90_64, QUERIES_SM90_128, row_defines,
};
use crate::cuda::{
    Define, Gradient, Input, Module, Output, RowLayout, constants, kernel, parameter_group, structs,
};
use crate::ops::attention::headers;

/// Threads of a block of the kernels of [`GRADIENTS`].
pub(super) const THREADS: usize = 256;

parameter_group! {
    /// The arguments of every pass over tiles.
    pub(super) struct AttentionInputs<'a> {
        /// `[N, HQ, D]`.
        pub(super) q: Input<'a, bf16>,
        /// `[N, H, D]`, or `[C, H, D]` where keys are block means.
        pub(super) k: Input<'a, bf16>,
        /// As `k`.
        pub(super) v: Input<'a, bf16>,
        /// N.
        pub(super) tokens: i32,
        /// H.
        pub(super) kv_heads: i32,
        /// The window in tokens, or the block size where keys are block means.
        pub(super) window_or_block: i32,
        pub(super) softmax_scale: f32,
    }
}

kernel! {
    /// Outputs and lse of every query.
    "tiled_attention_fwd" in FORWARD:
    pub(super) struct TiledAttentionFwd<'a> {
        pub(super) inputs: AttentionInputs<'a>,
        /// `[N, HQ, D]`.
        pub(super) out: Output<'a, bf16>,
        /// `[N, HQ]`.
        pub(super) lse: Output<'a, f32>,
        /// Entries of [`row_tiles`](super::tables::row_tiles).
        pub(super) tiles: Input<'a, [i32; 4]>,
    }
}

kernel! {
    /// Adds to the gradient of queries.
    "tiled_attention_bwd_queries" in QUERIES:
    pub(super) struct TiledAttentionBwdQueries<'a> {
        pub(super) inputs: AttentionInputs<'a>,
        /// `[N, HQ, D]`.
        pub(super) dout: Input<'a, bf16>,
        /// `[H, N, GROUP]`, from [`AttentionRowStatistics`].
        pub(super) statistics: Input<'a, [f32; 2]>,
        /// Entries of [`row_tiles`](super::tables::row_tiles).
        pub(super) tiles: Input<'a, [i32; 4]>,
        /// `[N, HQ, D]`.
        pub(super) dq: Gradient<'a, bf16>,
    }
}

kernel! {
    /// Adds to the gradients of keys and values whose rows are one piece, and writes partial sums
    /// of the others.
    "tiled_attention_bwd_keys" in KEYS:
    pub(super) struct TiledAttentionBwdKeys<'a> {
        pub(super) inputs: AttentionInputs<'a>,
        /// `[N, HQ, D]`.
        pub(super) dout: Input<'a, bf16>,
        /// `[H, N, GROUP]`, from [`AttentionRowStatistics`].
        pub(super) statistics: Input<'a, [f32; 2]>,
        /// Two entries a piece, of [`KeyTiles::pieces`](super::tables::KeyTiles::pieces).
        pub(super) pieces: Input<'a, [i32; 4]>,
        /// As `k`.
        pub(super) dk: Gradient<'a, bf16>,
        /// As `v`.
        pub(super) dv: Gradient<'a, bf16>,
        /// `[slots, H, 2, keys of a tile, D]`.
        pub(super) partial: Output<'a, f32>,
    }
}

kernel! {
    /// lse / ln 2 and `dout . out` of every query.
    "attention_row_statistics" in GRADIENTS:
    pub(super) struct AttentionRowStatistics<'a> {
        /// `[N, HQ, D]`.
        pub(super) out: Input<'a, bf16>,
        /// `[N, HQ]`.
        pub(super) lse: Input<'a, f32>,
        /// `[N, HQ, D]`.
        pub(super) dout: Input<'a, bf16>,
        /// `[H, N, GROUP]`.
        pub(super) statistics: Output<'a, [f32; 2]>,
        /// N.
        pub(super) tokens: i32,
        /// H.
        pub(super) kv_heads: i32,
    }
}

kernel! {
    /// Adds up the partial sums of key tiles.
    "attention_sum_keys" in GRADIENTS:
    pub(super) struct AttentionSumKeys<'a> {
        /// As [`TiledAttentionBwdKeys::partial`].
        pub(super) partial: Input<'a, f32>,
        /// Entries of [`KeyTiles::sums`](super::tables::KeyTiles::sums).
        pub(super) tiles: Input<'a, [i32; 4]>,
        /// As `k`.
        pub(super) dk: Gradient<'a, bf16>,
        /// As `v`.
        pub(super) dv: Gradient<'a, bf16>,
        /// Keys of a tile.
        pub(super) tile_keys: i32,
        /// H.
        pub(super) kv_heads: i32,
    }
}

/// A module with one kernel, and the sets of macros that are compiled ahead of time.
macro_rules! tiled_module {
    ($name:literal, $source:literal, $headers:expr, $parameters:ty, [$($tile:expr),*]) => {
        Module {
            name: $name,
            source: include_str!(concat!("../", $source)),
            headers: $headers,
            constants: &[],
            structs: structs![AttentionInputs, $parameters],
            variants: &[$(&$tile),*],
        }
    };
}

/// Query heads of a key/value head in the variants that are compiled ahead of time.
const GROUP: usize = 16;

pub(crate) static FORWARD: Module = tiled_module!(
    "tiled_attention_forward",
    "forward.cu",
    &[&headers::QUERY_TILE],
    TiledAttentionFwd,
    [FORWARD_64.defines(64, GROUP, false), FORWARD_128.defines(128, GROUP, false)]
);
pub(crate) static FORWARD_SM90: Module = tiled_module!(
    "tiled_attention_forward_sm90",
    "forward_sm90.cu",
    &[&headers::QUERY_TILE, &headers::SWIZZLED_TILE],
    TiledAttentionFwd,
    [FORWARD_SM90_64.defines(64, GROUP, false), FORWARD_SM90_128.defines(128, GROUP, false)]
);
pub(crate) static QUERIES: Module = tiled_module!(
    "tiled_attention_backward_queries",
    "backward_queries.cu",
    &[&headers::QUERY_TILE],
    TiledAttentionBwdQueries,
    [QUERIES_64.defines(64, GROUP, false), QUERIES_128.defines(128, GROUP, false)]
);
pub(crate) static QUERIES_SM90: Module = tiled_module!(
    "tiled_attention_backward_queries_sm90",
    "backward_queries_sm90.cu",
    &[&headers::QUERY_TILE, &headers::SWIZZLED_TILE],
    TiledAttentionBwdQueries,
    [QUERIES_SM90_64.defines(64, GROUP, false), QUERIES_SM90_128.defines(128, GROUP, false)]
);
pub(crate) static KEYS: Module = tiled_module!(
    "tiled_attention_backward_keys",
    "backward_keys.cu",
    &[&headers::KEY_TILE],
    TiledAttentionBwdKeys,
    [KEYS_64.defines(64, GROUP, false), KEYS_128.defines(128, GROUP, false)]
);
// At 128 columns some registers spill (144 bytes of stores and loads), since the accumulators leave
// none; it is still 1.6 times as fast as products of warps.
pub(crate) static KEYS_SM90: Module = tiled_module!(
    "tiled_attention_backward_keys_sm90",
    "backward_keys_sm90.cu",
    &[&headers::KEY_TILE, &headers::SWIZZLED_TILE],
    TiledAttentionBwdKeys,
    [KEYS_SM90_64.defines(64, GROUP, false)]
);
pub(crate) static GRADIENTS: Module = Module {
    name: "attention_gradients",
    source: include_str!("../gradients.cu"),
    headers: &[&headers::ATTENTION],
    constants: constants![THREADS],
    structs: structs![AttentionRowStatistics, AttentionSumKeys],
    variants: &[&gradient_defines(64, GROUP), &gradient_defines(128, GROUP)],
};

/// The macros of [`GRADIENTS`].
pub(super) const fn gradient_defines(head_dim: usize, group: usize) -> [Define; 3] {
    let [head_dim_define, group] = row_defines(head_dim, group);
    [head_dim_define, group, ("ROW_LANES", RowLayout::new(head_dim).lanes() as i64)]
}
