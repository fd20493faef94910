//! The product on the CPU: panels in parallel, tiles of rows and panels in registers.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::panels::{Elements, PANEL, Panels};
use crate::cpu::register_tile::{self, rows};
use crate::cpu::simd::dispatch;

/// Panels that all tiles of rows use before the next ones: they stay in the L2 cache.
const GROUP: usize = 4;

/// Fewest bytes of weights that are worth a task.
const TASK_BYTES: usize = 32 << 10;

/// Consecutive panels of a map, and the columns of its result that they give.
struct Task<'a> {
    panels: &'a Panels,
    first: usize,
    /// These columns of every row.
    out: Vec<&'a mut [f32]>,
}

/// Writes `x wᵀ` for the matrix `w` of every map.
pub(super) fn forward(x: &[f32], inputs: usize, maps: &[Panels], outs: Vec<&mut [f32]>) {
    let rows = x.len() / inputs;
    let total: usize = maps.iter().map(Panels::len).sum();
    let bytes: usize = maps.iter().map(Panels::bytes).sum();
    let tasks = (bytes / TASK_BYTES).clamp(1, 4 * rayon::current_num_threads());
    let panels = total.div_ceil(tasks);
    let mut tasks = Vec::with_capacity(2 * tasks);
    for (map, out) in maps.iter().zip(outs) {
        let begin = tasks.len();
        let firsts = (0..map.len()).step_by(panels);
        tasks.extend(firsts.map(|first| Task {
            panels: map,
            first,
            out: Vec::with_capacity(rows),
        }));
        for row in out.chunks_exact_mut(map.outputs()) {
            let columns = row.chunks_mut(panels * PANEL);
            tasks[begin..].iter_mut().zip(columns).for_each(|(task, part)| task.out.push(part));
        }
    }
    let run = |task: Task<'_>| dispatch(Product { x, task });
    // One task costs less than waking another thread.
    if let [_] = tasks.as_slice() {
        tasks.into_iter().for_each(run);
    } else {
        tasks.into_par_iter().with_max_len(1).for_each(run);
    }
}

struct Product<'a> {
    x: &'a [f32],
    task: Task<'a>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, task: Task { panels, first, mut out } } = self;
        let (inputs, out) = (panels.inputs, out.as_mut_slice());
        let count = out.first().map_or(0, |out| out.len().div_ceil(PANEL));
        match &panels.elements {
            Elements::F32(elements) => {
                let len = panels.inputs * PANEL;
                let panels_of_task = S::as_simd_f32s(&elements[first * len..][..count * len]).0;
                let panel_len = len / S::F32_LANES;
                Tiles { x, inputs, panels: panels_of_task, panel_len, out }.run::<S, F32>(simd);
            }
            Elements::Bf16(elements) => {
                let len = panels.inputs.div_ceil(2) * PANEL;
                let panels_of_task = S::as_simd_u32s(&elements[first * len..][..count * len]).0;
                let panel_len = len / S::F32_LANES;
                Tiles { x, inputs, panels: panels_of_task, panel_len, out }.run::<S, Bf16>(simd);
            }
        }
    }
}

/// How the elements of a panel are stored.
trait Format {
    /// A vector of them.
    type Vector<S: Simd>: Copy;

    /// `sum[r][v] += sum_i x[r][i] panel[i][column + v]`, where `panel` has `width` vectors for
    /// every stored element along I.
    fn multiply_add<S: Simd, const R: usize, const V: usize>(
        simd: S,
        sum: &mut [[S::f32s; V]; R],
        x: [&[f32]; R],
        panel: &[Self::Vector<S>],
        width: usize,
        column: usize,
    );
}

struct F32;

impl Format for F32 {
    type Vector<S: Simd> = S::f32s;

    #[inline(always)]
    fn multiply_add<S: Simd, const R: usize, const V: usize>(
        simd: S,
        sum: &mut [[S::f32s; V]; R],
        x: [&[f32]; R],
        panel: &[S::f32s],
        width: usize,
        column: usize,
    ) {
        register_tile::multiply_add(simd, sum, x, panel, width, column);
    }
}

struct Bf16;

impl Format for Bf16 {
    type Vector<S: Simd> = S::u32s;

    #[inline(always)]
    fn multiply_add<S: Simd, const R: usize, const V: usize>(
        simd: S,
        sum: &mut [[S::f32s; V]; R],
        x: [&[f32]; R],
        panel: &[S::u32s],
        width: usize,
        column: usize,
    ) {
        let (shift, mask) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
        let even = |pair| simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(pair, shift));
        let odd = |pair| simd.transmute_f32s_u32s(simd.and_u32s(pair, mask));
        let mut tile = *sum;
        // With one length for all rows, and no more pairs of the panel, the loop checks no index.
        let len = x[0].len();
        let x_pairs = x.map(|x| x[..len].as_chunks::<2>().0);
        let (pairs, last) = panel.split_at(len / 2 * width);
        let mut weights = [simd.splat_f32s(0.0); V];
        for (pair, vectors) in pairs.chunks_exact(width).take(x_pairs[0].len()).enumerate() {
            let vectors = &vectors[column..][..V];
            for v in 0..V {
                weights[v] = even(vectors[v]);
            }
            for r in 0..R {
                let x = simd.splat_f32s(x_pairs[r][pair][0]);
                for v in 0..V {
                    tile[r][v] = simd.mul_add_f32s(x, weights[v], tile[r][v]);
                }
            }
            for v in 0..V {
                weights[v] = odd(vectors[v]);
            }
            for r in 0..R {
                let x = simd.splat_f32s(x_pairs[r][pair][1]);
                for v in 0..V {
                    tile[r][v] = simd.mul_add_f32s(x, weights[v], tile[r][v]);
                }
            }
        }
        // The last pair of an odd number of inputs has one element.
        if !len.is_multiple_of(2) {
            for r in 0..R {
                let x = simd.splat_f32s(x[r][len - 1]);
                for v in 0..V {
                    tile[r][v] = simd.mul_add_f32s(x, even(last[column + v]), tile[r][v]);
                }
            }
        }
        *sum = tile;
    }
}

/// The rows and panels of a task.
struct Tiles<'a, 'o, W> {
    x: &'a [f32],
    inputs: usize,
    /// All panels, one after the other.
    panels: &'a [W],
    /// Vectors of a panel.
    panel_len: usize,
    out: &'a mut [&'o mut [f32]],
}

impl<W: Copy> Tiles<'_, '_, W> {
    /// Computes all rows. A tile has as many sums as the registers hold, or, for a single row, as
    /// keep the multipliers busy.
    #[inline(always)]
    fn run<S: Simd, F: Format<Vector<S> = W>>(&mut self, simd: S) {
        let (rows, panels) = (self.out.len(), self.panels.len() / self.panel_len);
        for first in (0..panels).step_by(GROUP) {
            let group = first..panels.min(first + GROUP);
            let mut row = 0;
            while row < rows {
                let group = group.clone();
                row += match rows - row {
                    1 if PANEL / S::F32_LANES >= 4 => self.tiles::<S, F, 1, 4>(simd, row, group),
                    1 => self.tiles::<S, F, 1, 2>(simd, row, group),
                    2 => self.tiles::<S, F, 2, 2>(simd, row, group),
                    3 => self.tiles::<S, F, 3, 2>(simd, row, group),
                    8.. if S::REGISTER_COUNT >= 32 => self.tiles::<S, F, 8, 2>(simd, row, group),
                    _ => self.tiles::<S, F, 4, 2>(simd, row, group),
                };
            }
        }
    }

    /// Computes `R` rows of a group of panels and returns `R`.
    #[inline(always)]
    fn tiles<S: Simd, F: Format<Vector<S> = W>, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        row: usize,
        group: Range<usize>,
    ) -> usize {
        let x = rows::<R>(self.x, row, self.inputs, 0, self.inputs);
        let width = PANEL / S::F32_LANES;
        for number in group {
            let panel = &self.panels[number * self.panel_len..][..self.panel_len];
            for column in (0..width).step_by(V) {
                let mut sums = [[simd.splat_f32s(0.0); V]; R];
                F::multiply_add(simd, &mut sums, x, panel, width, column);
                let offset = number * PANEL + column * S::F32_LANES;
                for (sums, out) in sums.iter().zip(&mut self.out[row..]) {
                    for (v, sum) in sums.iter().enumerate() {
                        let start = out.len().min(offset + v * S::F32_LANES);
                        let end = out.len().min(start + S::F32_LANES);
                        simd.partial_store_f32s(&mut out[start..end], *sum);
                    }
                }
            }
        }
        R
    }
}
