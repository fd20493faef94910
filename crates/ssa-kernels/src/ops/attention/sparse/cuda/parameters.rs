//! The kernels and their parameters. These are passed by value, so that the compiler sees the
//! fields as separate arguments (with `__grid_constant__` it no longer specializes loops for `add`,
//! and addresses that are chosen between two fields become generic).

use half::bf16;

use super::inverse_index::Pair;
use super::tiling::{Tiling, WARPS};
use crate::cuda::{
    Define, Gradient, Input, Module, Output, constants, kernel, parameter_group, structs,
};
use crate::ops::attention::headers;

parameter_group! {
    /// The inputs of every pass.
    pub(super) struct SparseInputs<'a> {
        /// `[N, HQ, D]`.
        pub(super) q: Input<'a, bf16>,
        /// `[N, H, D]`.
        pub(super) k: Input<'a, bf16>,
        /// `[N, H, D]`.
        pub(super) v: Input<'a, bf16>,
    }
}

kernel! {
    /// Outputs and lse of every query.
    "sparse_fwd" in FORWARD:
    pub(super) struct SparseFwd<'a> {
        pub(super) inputs: SparseInputs<'a>,
        /// `[N, HQ, D]`.
        pub(super) out: Output<'a, bf16>,
        /// `[N, HQ]`.
        pub(super) lse: Output<'a, f32>,
        /// Selected blocks, `[N, H, slots]`.
        pub(super) indices: Input<'a, i32>,
        /// For every token the first token of its document.
        pub(super) document_start: Input<'a, i32>,
        /// N.
        pub(super) tokens: i32,
        /// H.
        pub(super) kv_heads: i32,
        pub(super) slots: i32,
        pub(super) softmax_scale: f32,
    }
}

kernel! {
    /// Adds to the gradient of queries and writes `dout . out`.
    "sparse_bwd_queries" in BACKWARD_QUERIES:
    pub(super) struct SparseBwdQueries<'a> {
        pub(super) inputs: SparseInputs<'a>,
        /// `[N, HQ, D]`.
        pub(super) out: Input<'a, bf16>,
        /// `[N, HQ]`.
        pub(super) lse: Input<'a, f32>,
        /// `[N, HQ, D]`.
        pub(super) dout: Input<'a, bf16>,
        /// Selected blocks, `[N, H, slots]`.
        pub(super) indices: Input<'a, i32>,
        /// For every token the first token of its document.
        pub(super) document_start: Input<'a, i32>,
        /// `[N, HQ]`.
        pub(super) delta: Output<'a, f32>,
        /// `[N, HQ, D]`.
        pub(super) dq: Gradient<'a, bf16>,
        /// N.
        pub(super) tokens: i32,
        /// H.
        pub(super) kv_heads: i32,
        pub(super) slots: i32,
        pub(super) softmax_scale: f32,
    }
}

kernel! {
    /// Adds to the gradients of keys and values whose lists are whole, and writes pieces of the
    /// others.
    "sparse_bwd_keys" in BACKWARD_KEYS:
    pub(super) struct SparseBwdKeys<'a> {
        pub(super) inputs: SparseInputs<'a>,
        /// `[N, HQ]`.
        pub(super) lse: Input<'a, f32>,
        /// `[N, HQ, D]`.
        pub(super) dout: Input<'a, bf16>,
        /// `[N, HQ]`.
        pub(super) delta: Input<'a, f32>,
        /// The inverse of the selection, sorted by list.
        pub(super) pairs: Input<'a, Pair>,
        /// First pair of every list, then the number of pairs.
        pub(super) starts: Input<'a, i32>,
        /// First token of every block, then the number of tokens.
        pub(super) block_start: Input<'a, i32>,
        /// Two pieces a segment.
        pub(super) pieces: Output<'a, f32>,
        /// `[N, H, D]`.
        pub(super) dk: Gradient<'a, bf16>,
        /// `[N, H, D]`.
        pub(super) dv: Gradient<'a, bf16>,
        /// Number of lists.
        pub(super) lists: i32,
        /// H.
        pub(super) kv_heads: i32,
        /// Pairs of a segment.
        pub(super) segment: i32,
        pub(super) softmax_scale: f32,
    }
}

kernel! {
    /// Adds up the lists that were left in pieces.
    "sparse_bwd_keys_sum" in BACKWARD_KEYS:
    pub(super) struct SparseBwdKeysSum<'a> {
        /// As in [`SparseBwdKeys`], and so all that follow.
        pub(super) pieces: Input<'a, f32>,
        pub(super) starts: Input<'a, i32>,
        pub(super) block_start: Input<'a, i32>,
        pub(super) dk: Gradient<'a, bf16>,
        pub(super) dv: Gradient<'a, bf16>,
        pub(super) kv_heads: i32,
        pub(super) segment: i32,
        pub(super) softmax_scale: f32,
    }
}

/// Shapes whose registers are checked: the paper's at several block sizes, and a larger head.
const VARIANTS: &[&[Define]] = &[
    &Tiling { head_dim: 64, group: 16, block_size: 16 }.defines(),
    &Tiling { head_dim: 64, group: 16, block_size: 32 }.defines(),
    &Tiling { head_dim: 64, group: 16, block_size: 64 }.defines(),
    &Tiling { head_dim: 64, group: 16, block_size: 128 }.defines(),
    &Tiling { head_dim: 128, group: 16, block_size: 16 }.defines(),
];

pub(crate) static FORWARD: Module = Module {
    name: "sparse_forward",
    source: include_str!("../forward.cu"),
    headers: &[&headers::ONLINE_SOFTMAX, &headers::SELECTED_KEYS],
    constants: constants![WARPS],
    structs: structs![SparseInputs, SparseFwd],
    variants: VARIANTS,
};
pub(crate) static BACKWARD_QUERIES: Module = Module {
    name: "sparse_backward_queries",
    source: include_str!("../backward_queries.cu"),
    headers: &[&headers::SELECTED_KEYS],
    constants: constants![WARPS],
    structs: structs![SparseInputs, SparseBwdQueries],
    variants: VARIANTS,
};
pub(crate) static BACKWARD_KEYS: Module = Module {
    name: "sparse_backward_keys",
    source: include_str!("../backward_keys.cu"),
    headers: &[&headers::ROWS],
    constants: constants![WARPS],
    structs: structs![Pair, SparseInputs, SparseBwdKeys, SparseBwdKeysSum],
    variants: VARIANTS,
};
