//! The product on the CPU: panels in parallel, tiles of rows and panels in registers.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::panels::{Elements, Panels};
use crate::cpu::register_tile::LANES;
use crate::cpu::simd::dispatch;

/// Panels that all tiles of rows use before the next ones: they stay in the L2 cache.
const GROUP: usize = 8;

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
            let columns = row.chunks_mut(panels * LANES);
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
        let count = out.first().map_or(0, |out| out.len().div_ceil(LANES));
        match &panels.elements {
            Elements::F32(elements) => {
                let len = panels.inputs * LANES;
                let elements = S::as_simd_f32s(&elements[first * len..][..count * len]).0;
                for_lanes::<S, F32>(simd, x, panels.inputs, elements, &mut out);
            }
            Elements::Bf16(elements) => {
                let len = panels.inputs.div_ceil(2) * LANES;
                let elements = S::as_simd_u32s(&elements[first * len..][..count * len]).0;
                for_lanes::<S, Bf16>(simd, x, panels.inputs, elements, &mut out);
            }
        }
    }
}

/// How the elements of a panel are stored.
trait Format {
    /// A vector of them.
    type Vector<S: Simd>: Copy;

    /// Elements along I that a stored element holds.
    const NEIGHBORS: usize;

    /// `sum[r][p] = sum_i x[r][i] panel_p[i]` over all I.
    fn tile<S: Simd, const R: usize, const P: usize, const V: usize>(
        simd: S,
        x: [&[f32]; R],
        panels: [&[[Self::Vector<S>; V]]; P],
    ) -> [[[S::f32s; V]; P]; R];
}

struct F32;

impl Format for F32 {
    type Vector<S: Simd> = S::f32s;
    const NEIGHBORS: usize = 1;

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const P: usize, const V: usize>(
        simd: S,
        x: [&[f32]; R],
        panels: [&[[S::f32s; V]]; P],
    ) -> [[[S::f32s; V]; P]; R] {
        let mut sum = [[[simd.splat_f32s(0.0); V]; P]; R];
        let len = x[0].len();
        let (x, panels) = (x.map(|x| &x[..len]), panels.map(|panel| &panel[..len]));
        for i in 0..len {
            for r in 0..R {
                let x = simd.splat_f32s(x[r][i]);
                for p in 0..P {
                    for v in 0..V {
                        sum[r][p][v] = simd.mul_add_f32s(x, panels[p][i][v], sum[r][p][v]);
                    }
                }
            }
        }
        sum
    }
}

struct Bf16;

impl Format for Bf16 {
    type Vector<S: Simd> = S::u32s;
    const NEIGHBORS: usize = 2;

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const P: usize, const V: usize>(
        simd: S,
        x: [&[f32]; R],
        panels: [&[[S::u32s; V]]; P],
    ) -> [[[S::f32s; V]; P]; R] {
        let mut sum = [[[simd.splat_f32s(0.0); V]; P]; R];
        let (shift, mask) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
        let even = |pair| simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(pair, shift));
        let odd = |pair| simd.transmute_f32s_u32s(simd.and_u32s(pair, mask));
        let pairs = x[0].len() / 2;
        let last = x.map(|x| x.get(2 * pairs).copied());
        let x = x.map(|x| &x.as_chunks::<2>().0[..pairs]);
        for i in 0..pairs {
            for p in 0..P {
                for v in 0..V {
                    let pair = panels[p][i][v];
                    let (even, odd) = (even(pair), odd(pair));
                    for r in 0..R {
                        let [first, second] = x[r][i];
                        let with_first =
                            simd.mul_add_f32s(simd.splat_f32s(first), even, sum[r][p][v]);
                        sum[r][p][v] = simd.mul_add_f32s(simd.splat_f32s(second), odd, with_first);
                    }
                }
            }
        }
        if last[0].is_some() {
            for (sum, last) in sum.iter_mut().zip(last) {
                let x = simd.splat_f32s(last.unwrap_or_default());
                for (sum, panel) in sum.iter_mut().zip(panels) {
                    for (sum, pair) in sum.iter_mut().zip(panel[pairs]) {
                        *sum = simd.mul_add_f32s(x, even(pair), *sum);
                    }
                }
            }
        }
        sum
    }
}

/// The rows and panels of a task.
struct Tiles<'a, 'o, W, const V: usize> {
    x: &'a [f32],
    inputs: usize,
    /// All panels, one after the other.
    panels: &'a [[W; V]],
    /// Vectors `[W; V]` of a panel.
    panel_len: usize,
    out: &'a mut [&'o mut [f32]],
}

/// Runs a task with as many vectors per panel as this instruction set has.
#[inline(always)]
fn for_lanes<S: Simd, F: Format>(
    simd: S,
    x: &[f32],
    inputs: usize,
    elements: &[F::Vector<S>],
    out: &mut [&mut [f32]],
) {
    macro_rules! run {
        ($vectors:literal, $few:literal, $several:literal, $many:literal) => {{
            let (panels, _) = elements.as_chunks::<$vectors>();
            let panel_len = inputs.div_ceil(F::NEIGHBORS);
            let mut tiles = Tiles { x, inputs, panels, panel_len, out };
            tiles.run::<S, F, $few, $several, $many>(simd);
        }};
    }
    // The last three numbers: panels of a tile of 1 row, of 2 or 3 rows, and of 4 to 6 rows, so that
    // its sums fill the registers.
    match S::F32_LANES {
        16 => run!(1, 8, 4, 4),
        8 => run!(2, 4, 2, 1),
        4 => run!(4, 2, 1, 1),
        _ => run!(16, 1, 1, 1),
    }
}

impl<W: Copy, const V: usize> Tiles<'_, '_, W, V> {
    #[inline(always)]
    fn run<S: Simd, F, const FEW: usize, const SEVERAL: usize, const MANY: usize>(
        &mut self,
        simd: S,
    ) where
        F: Format<Vector<S> = W>,
    {
        let (rows, panels) = (self.out.len(), self.panels.len() / self.panel_len);
        for first in (0..panels).step_by(GROUP) {
            let group = first..panels.min(first + GROUP);
            let mut row = 0;
            while row < rows {
                let group = group.clone();
                row += match rows - row {
                    1 => self.tiles::<S, F, 1, FEW>(simd, row, group),
                    2 => self.tiles::<S, F, 2, SEVERAL>(simd, row, group),
                    3 => self.tiles::<S, F, 3, SEVERAL>(simd, row, group),
                    4 => self.tiles::<S, F, 4, MANY>(simd, row, group),
                    5 => self.tiles::<S, F, 5, MANY>(simd, row, group),
                    _ => self.tiles::<S, F, 6, MANY>(simd, row, group),
                };
            }
        }
    }

    /// Computes `R` rows of a group of panels, `P` panels at a time, and returns `R`.
    #[inline(always)]
    fn tiles<S: Simd, F: Format<Vector<S> = W>, const R: usize, const P: usize>(
        &mut self,
        simd: S,
        row: usize,
        group: std::ops::Range<usize>,
    ) -> usize {
        let (mut panel, end) = (group.start, group.end);
        while panel + P <= end {
            self.tile::<S, F, R, P>(simd, row, panel);
            panel += P;
        }
        while panel < end {
            self.tile::<S, F, R, 1>(simd, row, panel);
            panel += 1;
        }
        R
    }

    #[inline(always)]
    fn tile<S: Simd, F: Format<Vector<S> = W>, const R: usize, const P: usize>(
        &mut self,
        simd: S,
        row: usize,
        panel: usize,
    ) {
        let x = std::array::from_fn(|r| &self.x[(row + r) * self.inputs..][..self.inputs]);
        let panels =
            std::array::from_fn(|p| &self.panels[(panel + p) * self.panel_len..][..self.panel_len]);
        let sums = F::tile::<S, R, P, V>(simd, x, panels);
        for (r, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                let out = &mut self.out[row + r][(panel + p) * LANES..];
                match out.get_mut(..LANES) {
                    Some(out) => S::as_mut_simd_f32s(out).0.copy_from_slice(&sum),
                    None => {
                        let mut whole = [0.0; LANES];
                        S::as_mut_simd_f32s(&mut whole).0.copy_from_slice(&sum);
                        out.copy_from_slice(&whole[..out.len()]);
                    }
                }
            }
        }
    }
}
