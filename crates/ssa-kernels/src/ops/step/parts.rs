//! The parts of a step between its ends.

use super::tokens::{StepTokens, check_shape};
use crate::cuda::{Buffer, Gpu, Readback};
use crate::ops::attention::cached::PageOptions;
use crate::ops::attention::cached::cuda::{
    Attended, DeviceKeys, DeviceQueries, Gates, HeadMaps, PageCount, PartsScratch,
    SelectionScratch, rope_append,
};
use crate::ops::linear::LinearWeight;
use crate::ops::linear::rows::cuda::{Destination, RowsProduct};
use crate::ops::rope::RopeTable;
use crate::{Device, KernelError, Result, Tensor};

/// Where the result of a product goes.
pub enum StepOutput<'a> {
    /// To `[N, O]` in `f32`: all maps of the weight, one after the other.
    F32(&'a mut Tensor),
    /// Is added to `[N, O]`: a residual stream.
    Add(&'a mut Tensor),
    /// To `[N, O / 2]`: `silu(first half) * second half`, of a feed-forward gate and its input.
    SwiGlu(&'a mut Tensor),
}

impl LinearWeight {
    /// Computes `x Wᵀ` for all maps of the weight and a few rows `x` `[N, I]`, with `norm` after an
    /// RMS norm of `x` by a weight `[I]` and an epsilon. Sums are `f32` and are rounded once.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if an argument does not fit or is not on a GPU.
    pub fn step(
        &self,
        x: &Tensor,
        norm: Option<(&Tensor, f32)>,
        output: StepOutput<'_>,
    ) -> Result<()> {
        const OP: &str = "LinearWeight::step";
        let matrix = self.matrix(OP)?;
        let (tokens, outputs) = (x.rows(), matrix.rows());
        check_shape(OP, "x", x, [tokens, self.inputs()])?;
        if let Some((norm, _)) = norm {
            check_shape(OP, "norm", norm, [1, self.inputs()])?;
        }
        let destination = match output {
            StepOutput::F32(out) => {
                check_shape(OP, "out", out, [tokens, outputs])?;
                Destination::StoreF32(out)
            }
            StepOutput::Add(out) => {
                check_shape(OP, "out", out, [tokens, outputs])?;
                Destination::Add(out)
            }
            StepOutput::SwiGlu(out) => {
                check_shape(OP, "out", out, [tokens, outputs / 2])?;
                Destination::SwiGlu(out)
            }
        };
        let product = RowsProduct { x, weight: matrix, rows: 0..outputs, norm };
        product.run(gpu(OP, matrix)?, destination)
    }
}

fn gpu<'a>(op: &'static str, tensor: &'a Tensor) -> Result<&'a Gpu> {
    match tensor.location() {
        crate::tensor::Location::Cuda(gpu) => Ok(gpu),
        _ => Err(KernelError::device(op, "weight", "a GPU", Device::Cpu)),
    }
}

/// The cached keys that a token attends to.
#[derive(Clone, Copy, Debug)]
pub enum StepKeys<'a> {
    /// All.
    All,
    /// The last ones, at least 1.
    Last(usize),
    /// Those of the pages that are selected for it.
    Selected(&'a PageOptions),
    /// The means of complete pages.
    Means,
}

/// The gates of an attention: sigmoids of HQ columns of projections, from `first` on.
#[derive(Clone, Copy, Debug)]
pub struct StepGates<'a> {
    /// `[N, ..]`.
    pub scores: &'a Tensor,
    /// The first of the columns.
    pub first: usize,
}

/// An attention of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepAttention<'a> {
    /// The keys that each token attends to.
    pub keys: StepKeys<'a>,
    /// Factor of every score.
    pub softmax_scale: f32,
    /// What the result is multiplied by; nothing without gates.
    pub gates: Option<StepGates<'a>>,
    /// Whether the result is added to the output.
    pub add: bool,
}

/// Intermediate results of the attention of a step, for any of its kinds.
pub struct StepScratch {
    selection: SelectionScratch,
    /// `[N, H, slots]`.
    indices: Buffer<i32>,
    slots: usize,
    parts: PartsScratch,
    /// Kept mass and number of pages of every selection, `[layers, N, H]`, if they are wanted.
    selections: Option<Buffer<[f32; 2]>>,
}

impl StepScratch {
    /// Room for attention of `query_heads` heads with selections of up to `pages` pages. With
    /// `measures`, the mass that the selections of each layer keep can be read afterwards.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`].
    pub fn new(
        tokens: &StepTokens,
        query_heads: usize,
        pages: usize,
        measures: bool,
    ) -> Result<Self> {
        let StepTokens { gpu, shape, tables, .. } = tokens;
        let slots = pages.min(tables.blocks());
        let group = query_heads / shape.kv_heads;
        Ok(Self {
            selection: SelectionScratch::new(gpu, tables, shape.kv_heads, group)?,
            indices: gpu.alloc(tokens.len() * shape.kv_heads * slots)?,
            slots,
            parts: PartsScratch::new(gpu, shape, tables, query_heads, DeviceKeys::All)?,
            selections: measures
                .then(|| gpu.alloc(shape.layers * tokens.len() * shape.kv_heads))
                .transpose()?,
        })
    }

    /// Starts to read the estimated mass that each selection of the last step kept, and its number
    /// of pages; nothing unless it was to be measured.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses.
    pub fn selections(&self) -> Result<StepSelections> {
        let start = |buffer: &Buffer<[f32; 2]>| Readback::start(buffer, buffer.len());
        Ok(StepSelections { readback: self.selections.as_ref().map(start).transpose()? })
    }
}

/// What the selections of a step kept, on its way from a GPU.
#[derive(Debug)]
pub struct StepSelections {
    readback: Option<Readback>,
}

impl StepSelections {
    /// Mass and number of pages of every selection: for every layer, token and key/value head.
    /// Waits for the step, not for later ones.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the step failed.
    pub fn wait(mut self) -> Result<Vec<[f32; 2]>> {
        let Some(readback) = &mut self.readback else { return Ok(Vec::new()) };
        let numbers = readback.wait()?.as_chunks().0.iter().map(|&bytes| f32::from_ne_bytes(bytes));
        let numbers: Vec<f32> = numbers.collect();
        Ok(numbers.as_chunks().0.to_vec())
    }
}

impl StepTokens {
    /// From projections `[N, ..]` (query heads, keys, values, then others) to attention: queries
    /// `q` `[N, HQ, D]` after RoPE, keys and values in the pages of `layer`, means of pages that
    /// become complete.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if an argument does not fit.
    pub fn rope_append(
        &self,
        layer: usize,
        projected: &Tensor,
        maps: &HeadMaps<'_>,
        rope: &RopeTable,
        q: &mut Tensor,
    ) -> Result<()> {
        const OP: &str = "StepTokens::rope_append";
        let width = q.len() / self.len() + 2 * self.shape.kv_heads * self.shape.head_dim;
        if projected.rows() != self.len() || projected.last_dim() < width {
            let expected = format!("[{}, {width} or more]", self.len());
            return Err(KernelError::shape(OP, "projected", expected, projected.shape()));
        }
        let positions = self.sizes.longest;
        if rope.head_dim() != self.shape.head_dim || rope.positions() < positions {
            let expected = format!("{positions} positions of heads of {}", self.shape.head_dim);
            let actual = format!("{} of {}", rope.positions(), rope.head_dim());
            return Err(KernelError::value(OP, "rope", expected, actual));
        }
        let layer = self.pages.layer(layer);
        let tokens = (&self.tables, self.sizes.tokens_each);
        rope_append(&self.gpu, (&self.shape, layer), tokens, projected, maps, rope, q)
    }

    /// Attends from `q` `[N, HQ, D]` to keys of `layer` and writes the gated result to `out`
    /// `[N, HQ, D]`, or adds it there.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if an argument does not fit, or for a budget that is impossible or
    /// larger than `scratch`.
    pub fn attend(
        &self,
        layer: usize,
        q: &Tensor,
        attention: &StepAttention<'_>,
        scratch: &mut StepScratch,
        out: &mut Tensor,
    ) -> Result<()> {
        const OP: &str = "StepTokens::attend";
        let &StepAttention { keys, softmax_scale, gates, add } = attention;
        let query_heads = q.len() / (self.len() * self.shape.head_dim);
        check_shape(OP, "out", out, [q.rows(), q.last_dim()])?;
        let queries = DeviceQueries {
            gpu: &self.gpu,
            shape: &self.shape,
            layer: self.pages.layer(layer),
            tables: &self.tables,
            q,
            query_heads,
            softmax_scale,
        };
        let StepScratch { selection, indices, slots, parts, selections } = scratch;
        let keys = match keys {
            StepKeys::All => DeviceKeys::All,
            StepKeys::Last(window) => DeviceKeys::Last(window.max(1)),
            StepKeys::Means => DeviceKeys::Means,
            StepKeys::Selected(options) => {
                let (options, mass) = options.selection(OP, self.shape.page_size)?;
                let count = PageCount::new(OP, &options, mass, self.tables.blocks())?;
                if count.slots > *slots {
                    let expected = format!("at most {slots} pages");
                    return Err(KernelError::value(OP, "keys", expected, count.slots));
                }
                let first = layer * self.len() * self.shape.kv_heads;
                let selections = selections.as_mut().map(|buffer| (buffer, first));
                queries.select(&count, selection, indices, selections)?;
                DeviceKeys::Pages(indices, count.slots)
            }
        };
        let gates = gates.map(|StepGates { scores, first }| Gates { scores, first });
        queries.attend(keys, parts, Attended { out, lse: None, gates, add })
    }
}
