//! Sums over the selections of the layers of a call.

use crate::Result;
use crate::cuda::{Buffer, Gpu, Input, Launch, Module, Output, constants, int, kernel, structs};

pub(super) static MODULE: Module = Module {
    name: "selection_totals",
    source: include_str!("totals.cu"),
    headers: &[],
    constants: constants![THREADS],
    structs: structs![SumSelections],
    variants: &[&[]],
};

/// Threads of a block.
const THREADS: usize = 256;

kernel! {
    /// Adds up what selections keep.
    "sum_selections" in MODULE:
    struct SumSelections<'a> {
        /// Kept mass and number of pages of each selection.
        kept: Input<'a, [f32; 2]>,
        /// The sums of all layers, `[layers, 2]`.
        totals: Output<'a, f64>,
        rows: i64,
        layer: i32,
    }
}

/// Sums on a GPU.
pub(in super::super) struct DeviceTotals(Buffer<f64>);

impl DeviceTotals {
    pub(in super::super) fn new(gpu: &Gpu, layers: usize) -> Result<Self> {
        let mut totals = gpu.alloc(2 * layers)?;
        totals.fill_zero()?;
        Ok(Self(totals))
    }

    /// Adds the selections of a layer.
    pub(in super::super) fn add(&mut self, layer: usize, kept: &Buffer<[f32; 2]>) -> Result<()> {
        let parameters = SumSelections {
            kept: kept.input(),
            totals: self.0.shared_output(),
            rows: kept.len() as i64,
            layer: int("layer", layer)?,
        };
        kept.gpu().launch(Launch::new([1, 1, 1], THREADS), parameters)
    }

    /// Mass and pages of every layer.
    pub(in super::super) fn read(&self) -> Result<Vec<(f64, u64)>> {
        let mut totals = vec![0.0; self.0.len()];
        self.0.read(&mut totals)?;
        Ok(totals.as_chunks().0.iter().map(|&[mass, pages]| (mass, pages as u64)).collect())
    }
}
