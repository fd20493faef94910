//! Keys and values of whole sequences in consecutive rows, for the kernels that read them so.

use half::bf16;

use super::{DeviceQueries, page_defines};
use crate::cuda::{Input, Launch, Module, Output, constants, int, kernel, structs};
use crate::kv_cache::{CachedTokens, KvShape, MEANS_PER_PAGE};
use crate::ops::attention::headers;
use crate::ops::attention::shape::{AttentionOutput, AttentionShape};
use crate::ops::attention::tiled::SequenceQueries;
use crate::{DType, Device, Result, Sequences, Tensor};

pub(super) static MODULE: Module = Module {
    name: "gather_pages",
    source: include_str!("gather.cu"),
    headers: &[&headers::CACHED],
    constants: constants![THREADS, MEANS_PER_PAGE],
    structs: structs![CachedTokens, GatherPages],
    variants: &[&page_defines(64, 16), &page_defines(80, 5)],
};

/// Threads of a block.
const THREADS: usize = 256;

kernel! {
    /// Copies the keys and values of whole sequences.
    "gather_pages" in MODULE:
    struct GatherPages<'a> {
        pages: Input<'a, bf16>,
        /// First row of each sequence, then the number of rows.
        key_starts: Input<'a, i32>,
        /// `[keys, H, D]`.
        k: Output<'a, bf16>,
        /// As `k`.
        v: Output<'a, bf16>,
        tokens: CachedTokens<'a>,
        kv_heads: i32,
    }
}

impl DeviceQueries<'_> {
    /// Attends to the last `window_size` keys of each query by the kernel of whole documents: many
    /// queries share each tile of keys. Its keys lie in consecutive rows; copying them takes a
    /// hundredth of the time of a chunk's attention.
    pub(in super::super) fn attend_tiled(
        &self,
        op: &'static str,
        sequences: &Sequences,
        window_size: usize,
        shape: AttentionShape,
        output: &mut AttentionOutput,
    ) -> Result<()> {
        let &Self { gpu, q, softmax_scale, .. } = self;
        let [k, v] = self.gather(sequences)?;
        let kv = [&k, &v];
        SequenceQueries { op, q, kv, sequences, window_size, softmax_scale, shape }
            .attend(gpu, output)
    }

    /// Keys and values `[keys of all sequences, H, D]`.
    fn gather(&self, sequences: &Sequences) -> Result<[Tensor; 2]> {
        let &Self { gpu, shape, layer, tables, .. } = self;
        let &KvShape { kv_heads, head_dim, page_size, .. } = shape;
        let key_lens = sequences.key_lens();
        let (keys, longest) =
            (key_lens.iter().sum::<usize>(), key_lens.iter().copied().max().unwrap_or(0));
        let device = Device::Cuda(gpu.clone());
        let new = || Tensor::for_output_on(&device, DType::Bf16, [keys, kv_heads, head_dim]);
        let (mut k, mut v) = (new()?, new()?);
        let key_starts = sequences.device_key_starts(gpu)?;
        let blocks = (longest * kv_heads * head_dim / 8).div_ceil(THREADS);
        gpu.launch(
            Launch::new([blocks, sequences.len(), 1], THREADS)
                .defines(&page_defines(head_dim, page_size)),
            GatherPages {
                pages: layer.pages.input(),
                key_starts: key_starts.input(),
                k: k.output()?,
                v: v.output()?,
                tokens: tables.tokens(0),
                kv_heads: int("H", kv_heads)?,
            },
        )?;
        Ok([k, v])
    }
}
