//! The bias on the CPU: rows in parallel.

use rayon::prelude::*;

use crate::cpu::elementwise::rows_per_chunk;

/// Rows that share one partial sum of `dbias`. The sum of so few terms is safe in `f32`.
const ROWS: usize = 64;

pub(super) fn forward(x: &mut [f32], bias: &[f32]) {
    let width = bias.len();
    x.par_chunks_mut(rows_per_chunk(width) * width).for_each(|rows| {
        rows.chunks_exact_mut(width).for_each(|row| add(row, bias));
    });
}

pub(super) fn backward(dout: &[f32], dbias: &mut [f32]) {
    let width = dbias.len();
    let partials: Vec<Vec<f32>> = dout
        .par_chunks(ROWS * width)
        .map(|rows| {
            let mut sum = vec![0.0; width];
            rows.chunks_exact(width).for_each(|row| add(&mut sum, row));
            sum
        })
        .collect();
    for (column, dbias) in dbias.iter_mut().enumerate() {
        let sum: f64 = partials.iter().map(|partial| f64::from(partial[column])).sum();
        *dbias = (f64::from(*dbias) + sum) as f32;
    }
}

fn add(to: &mut [f32], row: &[f32]) {
    to.iter_mut().zip(row).for_each(|(to, value)| *to += value);
}
