//! The bias on the CPU: rows in parallel.

use rayon::prelude::*;

use crate::Result;
use crate::cpu::elementwise::rows_per_chunk;
use crate::host_memory::zeros;

/// Rows that share one partial sum of `dbias`. The sum of so few terms is safe in `f32`.
const ROWS: usize = 64;

pub(super) fn forward(x: &mut [f32], bias: &[f32]) {
    let width = bias.len();
    x.par_chunks_mut(rows_per_chunk(width) * width).for_each(|rows| {
        rows.chunks_exact_mut(width).for_each(|row| add(row, bias));
    });
}

/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(super) fn backward(dout: &[f32], dbias: &mut [f32]) -> Result<()> {
    let width = dbias.len();
    let rows = dout.par_chunks(ROWS * width);
    let mut partials = zeros::<f32>(rows.len() * width)?;
    partials.par_chunks_exact_mut(width).zip(rows).for_each(|(sum, rows)| {
        rows.chunks_exact(width).for_each(|row| add(sum, row));
    });
    for (column, dbias) in dbias.iter_mut().enumerate() {
        let partials = partials.iter().skip(column).step_by(width);
        let sum: f64 = partials.map(|&partial| f64::from(partial)).sum();
        *dbias = (f64::from(*dbias) + sum) as f32;
    }
    Ok(())
}

fn add(to: &mut [f32], row: &[f32]) {
    to.iter_mut().zip(row).for_each(|(to, value)| *to += value);
}
