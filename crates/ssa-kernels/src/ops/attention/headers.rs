//! The CUDA headers that the kernels of attention share.

use crate::cuda::{COMMON, DEPENDENT_LAUNCH, Header};

macro_rules! headers {
    ($($(#[$meta:meta])* $name:ident = $file:literal includes [$($include:ident),*];)*) => {
        $(
            $(#[$meta])*
            pub(crate) static $name: Header = Header {
                name: $file,
                text: include_str!(concat!("include/", $file)),
                includes: &[$(&$include),*],
            };
        )*
    };
}

headers! {
    /// Products of warps.
    MMA = "mma.cuh" includes [COMMON];
    /// Barriers in shared memory.
    BARRIER = "barrier.cuh" includes [MMA];
    /// Products of warpgroups.
    WGMMA = "wgmma.cuh" includes [MMA];
    /// Copies that belong to single lanes.
    LANE_RING = "lane_ring.cuh" includes [MMA];
    /// Pages of a KV cache.
    CACHED = "cached.cuh" includes [DEPENDENT_LAUNCH];
    /// Rows in registers.
    ROWS = "rows.cuh" includes [MMA];
    /// Online softmax of scores in registers.
    ONLINE_SOFTMAX = "online_softmax.cuh" includes [MMA];
    /// Rows of queries and keys of tiled attention.
    ATTENTION = "attention.cuh" includes [COMMON];
    /// Tiles in shared memory for products of warps.
    TILE = "tile.cuh" includes [ATTENTION, MMA];
    /// Tiles in shared memory for products of warpgroups.
    SWIZZLED_TILE = "swizzled_tile.cuh" includes [BARRIER, TILE, WGMMA];
    /// A tile of keys, for the backward pass of keys.
    KEY_TILE = "key_tile.cuh" includes [TILE];
    /// A tile of packed query rows.
    QUERY_TILE = "query_tile.cuh" includes [ONLINE_SOFTMAX, TILE];
    /// The selected keys of a token.
    SELECTED_KEYS = "selected_keys.cuh" includes [ROWS];
    /// The best blocks of a token so far.
    CANDIDATES = "candidates.cuh" includes [COMMON];
}
