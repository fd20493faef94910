//! The softmax over one segment of keys, and how segments are joined.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::pages::{HeadPages, Keys, Values};
use crate::cpu::register_tile::{LANES, Matrices, RowsTimesEach, SumOfEach, padded, run};
use crate::cpu::simd::{exp_row_simd, max_row_simd};

/// The attention of some rows to some keys, before the division by the sum.
pub(super) struct Partial {
    /// Largest score of each row; negative infinity if it saw no key.
    pub(super) max: Vec<f32>,
    /// Sum of `e^(score - max)`.
    pub(super) sum: Vec<f32>,
    /// Sum of values under these weights `[rows, padded D]`.
    pub(super) out: Vec<f32>,
}

impl Partial {
    /// Rows that have seen no key.
    pub(super) fn empty(rows: usize, head_dim: usize) -> Self {
        let (max, sum) = (vec![f32::NEG_INFINITY; rows], vec![0.0; rows]);
        Self { max, sum, out: vec![0.0; rows * padded(head_dim)] }
    }

    /// Joins the keys of this part and those of another that come after them.
    pub(super) fn join(&mut self, other: &Self) {
        let width = self.out.len() / self.max.len();
        let outs = self.out.chunks_exact_mut(width).zip(other.out.chunks_exact(width));
        let states = self.max.iter_mut().zip(&mut self.sum).zip(other.max.iter().zip(&other.sum));
        for (((max, sum), (&other_max, other_sum)), (out, other_out)) in states.zip(outs) {
            if other_max == f32::NEG_INFINITY {
                continue;
            }
            let joint = if *max > other_max { *max } else { other_max };
            let (own, others) = ((*max - joint).exp(), (other_max - joint).exp());
            *max = joint;
            *sum = own * *sum + others * other_sum;
            out.iter_mut().zip(other_out).for_each(|(out, x)| *out = own * *out + others * x);
        }
    }
}

/// Attends to one segment of keys.
pub(super) struct Segment<'a, V> {
    /// Scaled queries `[rows, D]`.
    pub(super) q: &'a [f32],
    pub(super) pages: HeadPages<'a>,
    /// The keys that a row sees, counted over the sequence.
    pub(super) visible: V,
    /// Buffer.
    pub(super) scores: &'a mut Vec<f32>,
    /// Overwritten.
    pub(super) partial: &'a mut Partial,
}

impl<V: Fn(usize) -> Range<usize>> WithSimd for Segment<'_, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { q, pages, visible, scores, partial } = self;
        let rows = partial.max.len();
        let (slot, width) = (Keys(pages).width(), Values(pages).width());
        let columns = pages.pages.len() * slot;
        // The extra vector keeps rows out of the same cache sets: page sizes tend to be powers of
        // two.
        let stride = columns + LANES;
        scores.resize(rows * stride, 0.0);
        for (first, pages) in pages.passes() {
            let mut product = RowsTimesEach {
                x: q,
                x_stride: pages.head_dim,
                matrices: Keys(pages),
                out: &mut scores[first * slot..],
                out_stride: stride,
            };
            run(simd, rows, slot, &mut product);
        }
        for (row, scores) in scores.chunks_exact_mut(stride).enumerate() {
            let scores = &mut scores[..columns];
            mask(scores, &pages, slot, visible(row));
            let max = max_row_simd(simd, scores);
            partial.max[row] = max;
            partial.sum[row] = if max == f32::NEG_INFINITY {
                scores.fill(0.0);
                0.0
            } else {
                exp_row_simd(simd, scores, 1.0, max)
            };
        }
        partial.out.fill(0.0);
        for (first, pages) in pages.passes() {
            let mut product = SumOfEach {
                x: &scores[first * slot..],
                x_stride: stride,
                slot_stride: slot,
                matrices: Values(pages),
                out: &mut partial.out,
            };
            run(simd, rows, width, &mut product);
        }
    }
}

/// Sets the scores of padding and of keys that the row does not see to negative infinity.
fn mask(scores: &mut [f32], pages: &HeadPages<'_>, slot: usize, visible: Range<usize>) {
    for (index, scores) in scores.chunks_exact_mut(slot).enumerate() {
        let keys = pages.keys(index);
        let end = visible.end.clamp(keys.start, keys.end) - keys.start;
        let start = visible.start.clamp(keys.start, keys.start + end) - keys.start;
        scores[..start].fill(f32::NEG_INFINITY);
        scores[end..].fill(f32::NEG_INFINITY);
    }
}
