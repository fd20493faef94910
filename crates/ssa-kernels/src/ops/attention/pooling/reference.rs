//! `f64` definition of block means. `width` is the number of elements of one token, H * D.

use crate::Documents;

/// The mean over the tokens of every block.
pub fn forward(x: &[f64], documents: &Documents, block_size: usize, width: usize) -> Vec<f64> {
    let mut pooled = Vec::new();
    for document in documents.ranges() {
        for block in x[document.start * width..document.end * width].chunks(block_size * width) {
            let mean = |i| {
                block.iter().skip(i).step_by(width).sum::<f64>() * width as f64 / block.len() as f64
            };
            pooled.extend((0..width).map(mean));
        }
    }
    pooled
}

/// Gradient `dx` for an upstream gradient `dpooled`.
pub fn backward(
    dpooled: &[f64],
    documents: &Documents,
    block_size: usize,
    width: usize,
) -> Vec<f64> {
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
    dx
}
