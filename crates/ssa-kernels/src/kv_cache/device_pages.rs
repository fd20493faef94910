//! Pages in the memory of a GPU.

use std::sync::Arc;

use half::bf16;

use super::CachedRows;
use super::page_tables::PageTable;
use super::shape::{KvShape, MEANS_PER_PAGE};
use crate::cuda::{
    Buffer, Define, Element, Gpu, Input, Launch, Module, Output, Parameters, kernel, structs,
};
use crate::host_memory::{reserved, zeros};
use crate::{KernelError, Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "copy_pages",
    source: include_str!("copy_pages.cu"),
    headers: &[],
    constants: &[],
    structs: structs![CopyPages<f32>],
    variants: &[&defines(2048)],
};

kernel! {
    /// Copies pages to other pages.
    "copy_pages_bf16" for bf16, "copy_pages_f32" for f32 in MODULE:
    struct CopyPages<'a, T> {
        pages: Output<'a, T>,
        sources: Input<'a, i32>,
        targets: Input<'a, i32>,
    }
}

const fn defines(page_len: usize) -> [Define; 1] {
    [("PAGE_LENGTH", page_len as i64)]
}

/// Threads of a block that copies a page.
const THREADS: usize = 256;

/// Pages of means beyond those of one long sequence: each sequence may have one that is not full.
const MORE_MEAN_PAGES: usize = 512;

/// The pages of all sequences, allocated in full: their addresses are part of recorded work.
#[derive(Clone)]
pub(crate) struct DevicePages {
    gpu: Gpu,
    shape: KvShape,
    mean_pages: usize,
    layers: Arc<Vec<DeviceLayer>>,
}

/// The pages of a layer. The layout is that of `cached.cuh`.
pub(crate) struct DeviceLayer {
    /// `[P, H, 2, page_size, D]`.
    pub(crate) pages: Buffer<bf16>,
    /// `[M, H, MEANS_PER_PAGE, D]`.
    pub(crate) key_means: Buffer<f32>,
    /// As `key_means`.
    pub(crate) value_means: Option<Buffer<f32>>,
}

impl DevicePages {
    /// Room for so many pages.
    pub(super) fn new(op: &'static str, gpu: &Gpu, shape: KvShape, pages: usize) -> Result<Self> {
        if !shape.head_dim.is_multiple_of(8) || shape.head_dim > 256 {
            let expected = "a multiple of 8, at most 256, on a GPU";
            return Err(KernelError::value(op, "shape.head_dim", expected, shape.head_dim));
        }
        let mean_pages = pages.div_ceil(MEANS_PER_PAGE) + pages.min(MORE_MEAN_PAGES);
        let row = shape.kv_heads * shape.head_dim;
        let means = || gpu.alloc(mean_pages * MEANS_PER_PAGE * row);
        let layer = |_| {
            Ok(DeviceLayer {
                pages: gpu.alloc(pages * 2 * shape.page_size * row)?,
                key_means: means()?,
                value_means: shape.value_means.then(means).transpose()?,
            })
        };
        let layers = (0..shape.layers).map(layer).collect::<Result<_>>()?;
        Ok(Self { gpu: gpu.clone(), shape, mean_pages, layers: Arc::new(layers) })
    }

    /// Refuses more pages of means than there are.
    pub(super) fn check_mean_pages(&self, in_use: usize) -> Result<()> {
        if in_use <= self.mean_pages {
            return Ok(());
        }
        let expected = format!("at most about {MORE_MEAN_PAGES} sequences at a time");
        Err(KernelError::value("KvCache::extend", "chunks", expected, "more"))
    }

    /// The pages of a layer.
    pub(crate) fn layer(&self, layer: usize) -> &DeviceLayer {
        &self.layers[layer]
    }

    /// Copies all pages of a sequence to those of another of the same length.
    pub(super) fn copy(&self, source: &PageTable, target: &PageTable) -> Result<()> {
        let KvShape { kv_heads, head_dim, page_size, .. } = self.shape;
        let row = kv_heads * head_dim;
        let upload = |pages: &[u32]| {
            self.gpu.upload(&pages.iter().map(|&page| page as i32).collect::<Vec<i32>>())
        };
        let pages = [upload(source.pages())?, upload(target.pages())?];
        let means = [upload(source.mean_pages())?, upload(target.mean_pages())?];
        for layer in self.layers.iter() {
            self.copy_pages(&layer.pages, 2 * page_size * row, &pages)?;
            for buffer in [Some(&layer.key_means), layer.value_means.as_ref()].into_iter().flatten()
            {
                self.copy_pages(buffer, MEANS_PER_PAGE * row, &means)?;
            }
        }
        Ok(())
    }

    fn copy_pages<T: Element>(
        &self,
        buffer: &Buffer<T>,
        page_len: usize,
        [sources, targets]: &[Buffer<i32>; 2],
    ) -> Result<()>
    where
        for<'a> CopyPages<'a, T>: Parameters,
    {
        self.gpu.launch(
            Launch::new([sources.len(), 1, 1], THREADS).defines(&defines(page_len)),
            CopyPages {
                pages: buffer.shared_output(),
                sources: sources.input(),
                targets: targets.input(),
            },
        )
    }

    /// Copies what a sequence has in a layer to the host.
    pub(super) fn rows(&self, layer: usize, table: &PageTable) -> Result<CachedRows> {
        let KvShape { kv_heads, head_dim, page_size, .. } = self.shape;
        let (layer, tokens) = (&self.layers[layer], table.tokens());
        let mut pages = zeros::<bf16>(layer.pages.len())?;
        layer.pages.read(&mut pages)?;
        // The first element of a row: of head, part of a page, and row of it.
        let at = |page: u32, parts: usize, [part, head, row]: [usize; 3], rows: usize| {
            (((page as usize * kv_heads + head) * parts + part) * rows + row) * head_dim
        };
        let token_rows = |part: usize| {
            let mut data = reserved(tokens * kv_heads * head_dim)?;
            for token in 0..tokens {
                let page = table.pages()[token / page_size];
                for head in 0..kv_heads {
                    let first = at(page, 2, [part, head, token % page_size], page_size);
                    data.extend(pages[first..first + head_dim].iter().map(|x| x.to_f32()));
                }
            }
            Tensor::from_vec(data, [tokens, kv_heads, head_dim])
        };
        let mean_rows = |buffer: &Buffer<f32>| {
            let mut means = zeros(buffer.len())?;
            buffer.read(&mut means)?;
            let blocks = tokens / page_size;
            let mut data = reserved(blocks * kv_heads * head_dim)?;
            for block in 0..blocks {
                let page = table.mean_pages()[block / MEANS_PER_PAGE];
                for head in 0..kv_heads {
                    let place = [0, head, block % MEANS_PER_PAGE];
                    let first = at(page, 1, place, MEANS_PER_PAGE);
                    data.extend(&means[first..first + head_dim]);
                }
            }
            Tensor::from_vec(data, [blocks, kv_heads, head_dim])
        };
        Ok(CachedRows {
            keys: token_rows(0)?,
            values: token_rows(1)?,
            key_means: mean_rows(&layer.key_means)?,
            value_means: layer.value_means.as_ref().map(mean_rows).transpose()?,
        })
    }
}
