//! The rotation on the CPU: tokens in parallel, pairs vectorized.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Direction, RopeTable};
use crate::cpu::elementwise::rows_per_chunk;
use crate::cpu::simd::dispatch;

pub(super) fn rotate(
    x: &mut [f32],
    heads: usize,
    positions: &[usize],
    table: &RopeTable,
    direction: Direction,
) {
    let width = heads * table.head_dim();
    let tokens = rows_per_chunk(width);
    x.par_chunks_mut(tokens * width).zip(positions.par_chunks(tokens)).for_each(
        |(x, positions)| {
            dispatch(Rotate { x, width, positions, table, direction });
        },
    );
}

struct Rotate<'a> {
    x: &'a mut [f32],
    /// Elements of a token: all its heads.
    width: usize,
    positions: &'a [usize],
    table: &'a RopeTable,
    direction: Direction,
}

impl WithSimd for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let sign = self.direction.sign();
        for (token, &position) in self.x.chunks_exact_mut(self.width).zip(self.positions) {
            let (cos, sin) = self.table.at(position);
            for head in token.chunks_exact_mut(self.table.head_dim()) {
                let (first, second) = head.split_at_mut(cos.len());
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    let sin = sign * sin;
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    }
}
