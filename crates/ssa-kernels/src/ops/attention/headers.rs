//! The CUDA headers that the kernels of attention share.

use crate::cuda::{COMMON, Header};

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
    /// Products of warpgroups.
    WGMMA = "wgmma.cuh" includes [MMA];
    /// Rows in registers.
    ROWS = "rows.cuh" includes [MMA];
    /// Rows of queries and keys of tiled attention.
    ATTENTION = "attention.cuh" includes [MMA];
    /// The same for warpgroups.
    ATTENTION_SM90 = "attention_sm90.cuh" includes [ATTENTION, WGMMA];
    /// A tile of keys, for the backward pass of keys.
    KEY_TILE = "key_tile.cuh" includes [ATTENTION];
    /// A tile of packed query rows.
    QUERY_TILE = "query_tile.cuh" includes [ATTENTION];
    /// The selected keys of a token.
    SELECTED_KEYS = "selected_keys.cuh" includes [ROWS];
    /// An entry of the inverse index.
    PAIR = "pair.cuh" includes [COMMON];
}
