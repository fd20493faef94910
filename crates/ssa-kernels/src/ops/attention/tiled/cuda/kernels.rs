//! Which kernel and tile sizes fit a call and a card. The numbers behind the choices are in the
//! README of the folder above.

use crate::cuda::{Gpu, Module};
use crate::ops::attention::headers;
use crate::ops::attention::shape::AttentionShape;
use crate::{KernelError, Result};

/// A macro of a compilation.
pub(in crate::ops::attention) type Define = (&'static str, i64);

/// Sizes of a variant that is compiled ahead, followed by its tile sizes.
const fn variant<const N: usize, const M: usize>(head_dim: i64, tiles: [Define; N]) -> [Define; M] {
    let mut defines = [("HEAD_DIM", head_dim); M];
    defines[1] = ("GROUP", 16);
    let mut index = 0;
    while index < N {
        defines[2 + index] = tiles[index];
        index += 1;
    }
    defines
}

const fn warps([row_tiles, warps, keys, stages, min_blocks]: [i64; 5]) -> [Define; 5] {
    [
        ("ROW_TILES", row_tiles),
        ("WARPS", warps),
        ("KEYS", keys),
        ("STAGES", stages),
        ("MIN_BLOCKS", min_blocks),
    ]
}

const fn warpgroups([warpgroups, keys, stages, min_blocks]: [i64; 4]) -> [Define; 4] {
    [("WARPGROUPS", warpgroups), ("KEYS", keys), ("STAGES", stages), ("MIN_BLOCKS", min_blocks)]
}

const fn with_step<const N: usize, const M: usize>(
    tiles: [Define; N],
    step: Define,
) -> [Define; M] {
    let mut defines = [step; M];
    let mut index = 0;
    while index < N {
        defines[index] = tiles[index];
        index += 1;
    }
    defines
}

const fn key_warps([key_tiles, warps, rows, stages, min_blocks, values]: [i64; 6]) -> [Define; 7] {
    [
        ("KEY_TILES", key_tiles),
        ("WARPS", warps),
        ("TILE_ROWS", rows),
        ("STEP_ROWS", 16),
        ("STAGES", stages),
        ("MIN_BLOCKS", min_blocks),
        ("VALUES_IN_REGISTERS", values),
    ]
}

const fn key_warpgroups([warpgroups, stages, in_registers]: [i64; 3]) -> [Define; 3] {
    [("WARPGROUPS", warpgroups), ("STAGES", stages), ("KEYS_IN_REGISTERS", in_registers)]
}

const FORWARD_64: [Define; 5] = warps([2, 4, 64, 2, 2]);
const FORWARD_128: [Define; 5] = warps([2, 4, 32, 3, 2]);
const FORWARD_256: [Define; 5] = warps([1, 4, 32, 3, 1]);
const FORWARD_SM90_64: [Define; 4] = warpgroups([2, 64, 4, 2]);
const FORWARD_SM90_128: [Define; 4] = warpgroups([2, 128, 3, 1]);

const QUERIES_64: [Define; 6] = with_step(warps([2, 4, 32, 4, 2]), ("STEP_KEYS", 32));
const QUERIES_128: [Define; 6] = with_step(warps([1, 4, 64, 2, 2]), ("STEP_KEYS", 32));
const QUERIES_256: [Define; 6] = with_step(warps([1, 4, 32, 2, 1]), ("STEP_KEYS", 16));
const QUERIES_SM90_64: [Define; 4] = warpgroups([3, 64, 6, 1]);
const QUERIES_SM90_128: [Define; 4] = warpgroups([2, 64, 4, 1]);

const KEYS_64: [Define; 7] = key_warps([2, 4, 64, 3, 2, 0]);
const KEYS_128: [Define; 7] = key_warps([1, 8, 32, 3, 1, 1]);
/// As [`KEYS_128`] for cards with 100 KiB of shared memory.
const KEYS_128_SMALL: [Define; 7] = key_warps([1, 4, 32, 3, 1, 1]);
const KEYS_256: [Define; 7] = key_warps([1, 4, 32, 2, 1, 0]);
const KEYS_SM90_64: [Define; 3] = key_warpgroups([2, 4, 1]);
const KEYS_SM90_128: [Define; 3] = key_warpgroups([2, 3, 0]);

pub(crate) static FORWARD: Module = Module {
    name: "tiled_attention_forward",
    source: include_str!("../forward.cu"),
    headers: &[&headers::QUERY_TILE],
    constants: &[],
    structs: &[],
    variants: &[&variant::<5, 7>(64, FORWARD_64), &variant::<5, 7>(128, FORWARD_128)],
};
pub(crate) static QUERIES: Module = Module {
    name: "tiled_attention_backward_queries",
    source: include_str!("../backward_queries.cu"),
    headers: &[&headers::QUERY_TILE],
    constants: &[],
    structs: &[],
    variants: &[&variant::<6, 8>(64, QUERIES_64), &variant::<6, 8>(128, QUERIES_128)],
};
pub(crate) static KEYS: Module = Module {
    name: "tiled_attention_backward_keys",
    source: include_str!("../backward_keys.cu"),
    headers: &[&headers::KEY_TILE],
    constants: &[],
    structs: &[],
    variants: &[&variant::<7, 9>(64, KEYS_64), &variant::<7, 9>(128, KEYS_128)],
};
pub(crate) static GRADIENTS: Module = Module {
    name: "attention_gradients",
    source: include_str!("../gradients.cu"),
    headers: &[&headers::ATTENTION],
    constants: &[],
    structs: &[],
    variants: &[&variant::<0, 2>(64, []), &variant::<0, 2>(128, [])],
};
pub(crate) static FORWARD_SM90: Module = Module {
    name: "tiled_attention_forward_sm90",
    source: include_str!("../forward_sm90.cu"),
    headers: &[&headers::ATTENTION_SM90, &headers::QUERY_TILE],
    constants: &[],
    structs: &[],
    variants: &[&variant::<4, 6>(64, FORWARD_SM90_64), &variant::<4, 6>(128, FORWARD_SM90_128)],
};
pub(crate) static QUERIES_SM90: Module = Module {
    name: "tiled_attention_backward_queries_sm90",
    source: include_str!("../backward_queries_sm90.cu"),
    headers: &[&headers::ATTENTION_SM90, &headers::QUERY_TILE],
    constants: &[],
    structs: &[],
    variants: &[&variant::<4, 6>(64, QUERIES_SM90_64), &variant::<4, 6>(128, QUERIES_SM90_128)],
};
pub(crate) static KEYS_SM90: Module = Module {
    name: "tiled_attention_backward_keys_sm90",
    source: include_str!("../backward_keys_sm90.cu"),
    headers: &[&headers::ATTENTION_SM90, &headers::KEY_TILE],
    constants: &[],
    structs: &[],
    // At 128 columns some registers spill, 108 bytes, where the accumulators leave none; it is
    // still 1.6 times as fast as products of warps.
    variants: &[&variant::<3, 5>(64, KEYS_SM90_64)],
};

/// A module and the tile sizes that it is compiled with: the only place where they are written
/// down.
#[derive(Clone, Copy)]
pub(in crate::ops::attention) struct Variant {
    pub(in crate::ops::attention) module: &'static Module,
    pub(in crate::ops::attention) tiles: &'static [Define],
}

impl Variant {
    pub(super) fn forward(gpu: &Gpu, head_dim: usize) -> Self {
        match (has_warpgroups(gpu), head_dim) {
            (true, 64) => Self { module: &FORWARD_SM90, tiles: &FORWARD_SM90_64 },
            (true, 128) => Self { module: &FORWARD_SM90, tiles: &FORWARD_SM90_128 },
            (_, ..=64) => Self { module: &FORWARD, tiles: &FORWARD_64 },
            (_, ..=128) => Self { module: &FORWARD, tiles: &FORWARD_128 },
            _ => Self { module: &FORWARD, tiles: &FORWARD_256 },
        }
    }

    pub(super) fn backward_queries(gpu: &Gpu, head_dim: usize) -> Self {
        match (has_warpgroups(gpu), head_dim) {
            (true, 64) => Self { module: &QUERIES_SM90, tiles: &QUERIES_SM90_64 },
            (true, 128) => Self { module: &QUERIES_SM90, tiles: &QUERIES_SM90_128 },
            (_, ..=64) => Self { module: &QUERIES, tiles: &QUERIES_64 },
            (_, ..=128) => Self { module: &QUERIES, tiles: &QUERIES_128 },
            _ => Self { module: &QUERIES, tiles: &QUERIES_256 },
        }
    }

    pub(super) fn backward_keys(gpu: &Gpu, head_dim: usize) -> Self {
        let is_small = gpu.properties().shared_memory < 128 << 10;
        match (has_warpgroups(gpu), head_dim) {
            (true, 64) => Self { module: &KEYS_SM90, tiles: &KEYS_SM90_64 },
            (true, 128) => Self { module: &KEYS_SM90, tiles: &KEYS_SM90_128 },
            (_, ..=64) => Self { module: &KEYS, tiles: &KEYS_64 },
            (_, ..=128) if is_small => Self { module: &KEYS, tiles: &KEYS_128_SMALL },
            (_, ..=128) => Self { module: &KEYS, tiles: &KEYS_128 },
            _ => Self { module: &KEYS, tiles: &KEYS_256 },
        }
    }

    /// A tile size; 0 where the kernel has no such.
    pub(in crate::ops::attention) fn get(&self, name: &str) -> usize {
        self.tiles
            .iter()
            .find(|(define, _)| *define == name)
            .map_or(0, |&(_, value)| value as usize)
    }

    pub(in crate::ops::attention) fn threads(&self) -> usize {
        32 * self.get("WARPS") + 128 * self.get("WARPGROUPS")
    }

    /// Packed rows of a query tile.
    pub(in crate::ops::attention) fn tile_rows(&self) -> usize {
        16 * self.get("ROW_TILES") * self.get("WARPS") + 64 * self.get("WARPGROUPS")
    }

    /// Keys of a key tile whose gradients a block sums.
    pub(in crate::ops::attention) fn tile_keys(&self) -> usize {
        16 * self.get("KEY_TILES") * self.get("WARPS") + 64 * self.get("WARPGROUPS")
    }

    /// Rows of a tile that [`tile_keys`](Self::tile_keys) are multiplied with.
    pub(in crate::ops::attention) fn streamed_rows(&self) -> usize {
        self.get("TILE_ROWS") + 64 * self.get("WARPGROUPS").min(1)
    }

    /// Bytes of shared memory behind everything else, for the barriers of a ring.
    pub(in crate::ops::attention) fn barrier_bytes(&self) -> usize {
        16 * self.get("STAGES") * self.get("WARPGROUPS").min(1)
    }

    /// All macros.
    pub(in crate::ops::attention) fn defines(&self, shape: &AttentionShape) -> Vec<Define> {
        [&sizes(shape), self.tiles].concat()
    }
}

/// The macros of [`GRADIENTS`], and the first ones of all others.
pub(in crate::ops::attention) fn sizes(shape: &AttentionShape) -> [Define; 2] {
    [("HEAD_DIM", shape.head_dim as i64), ("GROUP", shape.group() as i64)]
}

/// Whether the tensor cores take operands from shared memory: an H100 and its like, not what came
/// after.
pub(in crate::ops::attention) fn has_warpgroups(gpu: &Gpu) -> bool {
    gpu.properties().compute_capability == 90
}

/// Bytes of a row in shared memory.
pub(in crate::ops::attention) fn row_bytes(head_dim: usize) -> usize {
    2 * head_dim.next_multiple_of(16).next_power_of_two()
}

/// Refuses what the shared memory of a card does not hold: large heads on small cards.
pub(super) fn check_shared(
    op: &'static str,
    gpu: &Gpu,
    shape: &AttentionShape,
    bytes: usize,
) -> Result<usize> {
    if bytes <= gpu.properties().shared_memory {
        return Ok(bytes);
    }
    let (what, device) = (format!("attention with head_dim {}", shape.head_dim), gpu.to_string());
    let remedy =
        "its multiprocessors have too little shared memory: use another card or --device cpu";
    Err(KernelError::Unsupported { op, what, device, remedy })
}

/// Refuses a scale under which the largest product is not the largest score.
pub(super) fn check_scale(op: &'static str, softmax_scale: f32) -> Result<()> {
    if softmax_scale <= 0.0 || !softmax_scale.is_finite() {
        return Err(KernelError::value(op, "softmax_scale", "positive on a GPU", softmax_scale));
    }
    Ok(())
}
