//! Weights in panels of outputs, the order in which the product reads them.

use half::bf16;
use rayon::prelude::*;

use crate::host_memory::zeros;
use crate::{DType, Result};

/// Outputs of a panel: two or more vectors on every processor.
pub(super) const PANEL: usize = 32;

/// A matrix `[O, I]` in panels of [`PANEL`] outputs, the last padded with zeros.
pub(super) struct Panels {
    pub(super) inputs: usize,
    outputs: usize,
    pub(super) elements: Elements,
}

/// The elements of all panels, one panel after the other.
pub(super) enum Elements {
    /// A panel is `[I, PANEL]`.
    F32(Vec<f32>),
    /// A panel is `[I / 2 rounded up, PANEL]`. An element holds two neighbors along I, the even one
    /// in its lower half: a shift and a mask turn a vector of them into two vectors of `f32`.
    Bf16(Vec<u32>),
}

impl Panels {
    /// Packs a matrix `[O, I]`, rounded to `dtype`.
    ///
    /// # Errors
    /// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
    pub(super) fn new(weight: &[f32], inputs: usize, dtype: DType) -> Result<Self> {
        let outputs = weight.len() / inputs;
        let panels = outputs.div_ceil(PANEL);
        let rows =
            |panel: usize| weight.chunks_exact(inputs).skip(panel * PANEL).take(PANEL).enumerate();
        let elements = if dtype == DType::Bf16 {
            let pairs = inputs.div_ceil(2);
            let mut packed = zeros::<u32>(panels * pairs * PANEL)?;
            packed.par_chunks_exact_mut(pairs * PANEL).enumerate().for_each(|(panel, packed)| {
                for (lane, row) in rows(panel) {
                    for (pair, packed) in row.chunks(2).zip(packed.chunks_exact_mut(PANEL)) {
                        let bits =
                            |i: usize| pair.get(i).map_or(0, |&x| bf16::from_f32(x).to_bits());
                        packed[lane] = u32::from(bits(0)) | u32::from(bits(1)) << 16;
                    }
                }
            });
            Elements::Bf16(packed)
        } else {
            let mut packed = zeros::<f32>(panels * inputs * PANEL)?;
            packed.par_chunks_exact_mut(inputs * PANEL).enumerate().for_each(|(panel, packed)| {
                for (lane, row) in rows(panel) {
                    for (x, packed) in row.iter().zip(packed.chunks_exact_mut(PANEL)) {
                        packed[lane] = *x;
                    }
                }
            });
            Elements::F32(packed)
        };
        Ok(Self { inputs, outputs, elements })
    }

    /// Number of panels.
    pub(super) fn len(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// O.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of all panels.
    pub(super) fn bytes(&self) -> usize {
        match &self.elements {
            Elements::F32(elements) => size_of_val(elements.as_slice()),
            Elements::Bf16(elements) => size_of_val(elements.as_slice()),
        }
    }

    /// Appends a row `[I]` of the matrix.
    pub(super) fn append_row(&self, row: usize, out: &mut Vec<f32>) {
        let (panel, lane) = (row / PANEL, row % PANEL);
        match &self.elements {
            Elements::F32(elements) => {
                let panel = &elements[panel * self.inputs * PANEL..][..self.inputs * PANEL];
                out.extend(panel.iter().skip(lane).step_by(PANEL));
            }
            Elements::Bf16(elements) => {
                let pairs = self.inputs.div_ceil(2);
                let panel = &elements[panel * pairs * PANEL..][..pairs * PANEL];
                let halves = panel.iter().skip(lane).step_by(PANEL).flat_map(|&pair| {
                    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
                });
                out.extend(halves.take(self.inputs));
            }
        }
    }
}
