//! `f64` definition of block means. `width` is the number of elements of one token, H * D.

use crate::contract::{Args, C, HIDDEN, N};
use crate::{Documents, Result};

/// The mean over the tokens of every block.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn forward(
    x: &[f64],
    documents: &Documents,
    block_size: usize,
    width: usize,
) -> Result<Vec<f64>> {
    args("pooling::reference::forward", documents, block_size, width)
        .numbers("x", x, [N, HIDDEN])
        .check()?;
    let mut pooled = Vec::new();
    for document in documents.ranges() {
        let block_len = block_size.saturating_mul(width);
        for block in x[document.start * width..document.end * width].chunks(block_len) {
            let mean = |i| {
                block.iter().skip(i).step_by(width).sum::<f64>() * width as f64 / block.len() as f64
            };
            pooled.extend((0..width).map(mean));
        }
    }
    Ok(pooled)
}

/// Gradient `dx` for an upstream gradient `dpooled`.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    dpooled: &[f64],
    documents: &Documents,
    block_size: usize,
    width: usize,
) -> Result<Vec<f64>> {
    args("pooling::reference::backward", documents, block_size, width)
        .size("block_size", C, documents.blocks(block_size.max(1)))
        .numbers("dpooled", dpooled, [C, HIDDEN])
        .check()?;
    let mut dx = Vec::new();
    let mut dpooled = dpooled.chunks(width);
    for document in documents.ranges() {
        for start in document.clone().step_by(block_size) {
            let tokens = block_size.min(document.end - start);
            let mean: Vec<f64> =
                dpooled.next().into_iter().flatten().map(|d| d / tokens as f64).collect();
            dx.extend(mean.repeat(tokens));
        }
    }
    Ok(dx)
}

fn args(op: &'static str, documents: &Documents, block_size: usize, width: usize) -> Args<'static> {
    Args::new(op).positive("block_size", block_size).size("width", HIDDEN, width).entries(
        "documents",
        documents.total_tokens(),
        "tokens",
        [N],
    )
}
