//! Which kernel and tile sizes fit a head and a card.

use super::parameters::{
    FORWARD_SM90, KEYS_SM90, QUERIES_SM90, TiledAttentionBwdKeys, TiledAttentionBwdQueries,
    TiledAttentionFwd,
};
use super::tile::{
    FORWARD_64, FORWARD_128, FORWARD_256, FORWARD_SM90_64, FORWARD_SM90_128, KEYS_64, KEYS_128,
    KEYS_128_SMALL, KEYS_256, KEYS_SM90_64, KEYS_SM90_128, QUERIES_64, QUERIES_128, QUERIES_256,
    QUERIES_SM90_64, QUERIES_SM90_128, Tile,
};
use crate::cuda::{Gpu, Kernel, Parameters};
use crate::ops::attention::shape::AttentionShape;
use crate::{KernelError, Result};

/// The kernels of the modules for warpgroups, which take the same parameters as the others.
static FORWARD_SM90_KERNEL: Kernel = Kernel::new(&FORWARD_SM90, "tiled_attention_fwd");
static QUERIES_SM90_KERNEL: Kernel = Kernel::new(&QUERIES_SM90, "tiled_attention_bwd_queries");
static KEYS_SM90_KERNEL: Kernel = Kernel::new(&KEYS_SM90, "tiled_attention_bwd_keys");

/// A kernel and the tile sizes that it is compiled with.
#[derive(Clone, Copy)]
pub(super) struct Variant {
    pub(super) kernel: &'static Kernel,
    pub(super) tile: Tile,
}

impl Variant {
    pub(super) fn forward(gpu: &Gpu, head_dim: usize) -> Self {
        let warps = TiledAttentionFwd::kernel();
        match (gpu.properties().has_warpgroups(), head_dim) {
            (true, 64) => Self { kernel: &FORWARD_SM90_KERNEL, tile: FORWARD_SM90_64 },
            (true, 128) => Self { kernel: &FORWARD_SM90_KERNEL, tile: FORWARD_SM90_128 },
            (_, ..=64) => Self { kernel: warps, tile: FORWARD_64 },
            (_, ..=128) => Self { kernel: warps, tile: FORWARD_128 },
            _ => Self { kernel: warps, tile: FORWARD_256 },
        }
    }

    pub(super) fn backward_queries(gpu: &Gpu, head_dim: usize) -> Self {
        let warps = TiledAttentionBwdQueries::kernel();
        match (gpu.properties().has_warpgroups(), head_dim) {
            (true, 64) => Self { kernel: &QUERIES_SM90_KERNEL, tile: QUERIES_SM90_64 },
            (true, 128) => Self { kernel: &QUERIES_SM90_KERNEL, tile: QUERIES_SM90_128 },
            (_, ..=64) => Self { kernel: warps, tile: QUERIES_64 },
            (_, ..=128) => Self { kernel: warps, tile: QUERIES_128 },
            _ => Self { kernel: warps, tile: QUERIES_256 },
        }
    }

    pub(super) fn backward_keys(gpu: &Gpu, head_dim: usize) -> Self {
        let is_small = gpu.properties().shared_memory < 128 << 10;
        let warps = TiledAttentionBwdKeys::kernel();
        match (gpu.properties().has_warpgroups(), head_dim) {
            (true, 64) => Self { kernel: &KEYS_SM90_KERNEL, tile: KEYS_SM90_64 },
            (true, 128) => Self { kernel: &KEYS_SM90_KERNEL, tile: KEYS_SM90_128 },
            (_, ..=64) => Self { kernel: warps, tile: KEYS_64 },
            (_, ..=128) if is_small => Self { kernel: warps, tile: KEYS_128_SMALL },
            (_, ..=128) => Self { kernel: warps, tile: KEYS_128 },
            _ => Self { kernel: warps, tile: KEYS_256 },
        }
    }

    /// The shared memory of a block.
    ///
    /// # Errors
    /// [`KernelError::Unsupported`] if the card has less: large heads on small cards.
    pub(super) fn shared_bytes(
        &self,
        op: &'static str,
        gpu: &Gpu,
        shape: &AttentionShape,
    ) -> Result<usize> {
        let bytes = self.tile.shared_bytes(shape.head_dim);
        if bytes <= gpu.properties().shared_memory {
            return Ok(bytes);
        }
        let what = format!("attention with head_dim {}", shape.head_dim);
        let remedy =
            "its multiprocessors have too little shared memory: use another card or --device cpu";
        Err(KernelError::Unsupported { op, what, device: gpu.to_string(), remedy })
    }
}
