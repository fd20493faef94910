//! The sizes of a cache and the memory that follows from them.

use crate::cpu::register_tile::padded;
use crate::tensor::addressable_len;
use crate::{DType, Device, Documents, KernelError, Result};

/// Means of consecutive blocks of a sequence that a page of means holds.
pub const MEANS_PER_PAGE: usize = 16;

/// The sizes of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the model.
    pub layers: usize,
    /// H, key/value heads.
    pub kv_heads: usize,
    /// D, size of a head.
    pub head_dim: usize,
    /// Tokens of a page: the block size of sparse attention.
    pub page_size: usize,
    /// Whether it keeps means of values too, as attention over block means needs.
    pub value_means: bool,
}

impl KvShape {
    /// Bytes that a token takes on a device: its share of a page and of a page of means, rounded
    /// up. A sequence takes at most one page of each more than its tokens need.
    ///
    /// A GPU holds keys and values in `bf16` and means in `f32`. The CPU holds `f32` throughout,
    /// with page and head padded to whole vectors of 16 elements.
    pub fn bytes_per_token(&self, device: &Device) -> usize {
        let (page, means) = match device {
            Device::Cpu => {
                let bytes = DType::F32.size();
                (self.host_page_len() * bytes, self.host_means_len() * bytes)
            }
            Device::Cuda(_) => {
                let row = self.layers * self.kv_heads * self.head_dim;
                let means = if self.value_means { 2 } else { 1 };
                let page = 2 * self.page_size * row * DType::Bf16.size();
                (page, means * MEANS_PER_PAGE * row * DType::F32.size())
            }
        };
        page.div_ceil(self.page_size) + means.div_ceil(self.page_size * MEANS_PER_PAGE)
    }

    /// Elements of a page in host memory: K `[D, padded page_size]` and V `[page_size, padded D]`
    /// for every layer and head.
    pub(super) fn host_page_len(&self) -> usize {
        self.layers * self.kv_heads * matrices_len(self.page_size, self.head_dim, true)
    }

    /// Elements of a page of means in host memory.
    pub(super) fn host_means_len(&self) -> usize {
        self.layers * self.kv_heads * matrices_len(MEANS_PER_PAGE, self.head_dim, self.value_means)
    }

    /// Checks the sizes of a cache for `capacity` tokens.
    pub(super) fn check(&self, op: &'static str, capacity: usize) -> Result<()> {
        let Self { layers, kv_heads, head_dim, page_size, .. } = *self;
        let sizes = [
            ("shape.layers", layers),
            ("shape.kv_heads", kv_heads),
            ("shape.head_dim", head_dim),
            ("shape.page_size", page_size),
            ("capacity", capacity),
        ];
        if let Some(&(argument, size)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(KernelError::value(op, argument, "at least 1", size));
        }
        // 16: what padding adds at most, also to means.
        let tokens = capacity.checked_next_multiple_of(page_size).filter(|&tokens| {
            tokens <= Documents::MAX_TOKENS
                && addressable_len(
                    size_of::<f32>(),
                    &[4, tokens, layers, kv_heads, head_dim, 16, 16],
                )
                .is_some()
        });
        if tokens.is_none() {
            let expected = format!("at most {} tokens that memory can hold", Documents::MAX_TOKENS);
            return Err(KernelError::value(op, "capacity", expected, capacity));
        }
        Ok(())
    }
}

/// Elements of the matrices of one layer and head: keys `[D, padded rows]`, and values `[rows,
/// padded D]` if it has them.
pub(super) fn matrices_len(rows: usize, head_dim: usize, values: bool) -> usize {
    let values = if values { rows * padded(head_dim) } else { 0 };
    head_dim * padded(rows) + values
}
