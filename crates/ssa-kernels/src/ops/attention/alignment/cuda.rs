//! The alignment loss on a GPU: whole tokens by block.

use super::{AlignmentKind, Pulls};
use crate::cuda::elementwise::{THREADS, sum};
use crate::cuda::{Buffer, Gpu, Module};
use crate::{Result, Scalar, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "alignment",
    source: include_str!("alignment.cu"),
    variants: &[&[("WIDTH", 60), ("MSE", 1)], &[("WIDTH", 2048), ("MSE", 0)]],
};

/// The most blocks that take tokens in turn, each with one partial sum: 16 on each of 132
/// multiprocessors. A constant, so that results do not depend on the card.
pub(in super::super) const BLOCKS: usize = 2112;

/// The macro that chooses the distance.
pub(in super::super) fn mse(kind: AlignmentKind) -> (&'static str, i64) {
    ("MSE", i64::from(kind == AlignmentKind::Mse))
}

/// Which tokens count, one byte each, on the GPU.
pub(in super::super) fn upload_valid(gpu: &Gpu, valid: Option<&[bool]>) -> Result<Option<Buffer>> {
    valid.map(|valid| gpu.upload(valid)).transpose()
}

/// `factor` times the one-sided sum over valid tokens.
pub(super) fn forward(
    gpu: &Gpu,
    full: &Tensor,
    sparse: &Tensor,
    valid: Option<&[bool]>,
    kind: AlignmentKind,
    factor: f64,
) -> Result<Scalar> {
    let (tokens, width) = sizes(full);
    let blocks = tokens.min(BLOCKS);
    let mut partial = gpu.alloc::<f64>(blocks)?;
    let valid = upload_valid(gpu, valid)?;
    if width > 0 {
        let kernel = gpu.kernel(&MODULE, "alignment_fwd", &[("WIDTH", width as i64), mse(kind)])?;
        let launch = kernel.launch([blocks, 1, 1], THREADS).input(full).input(sparse);
        launch.optional(valid.as_ref()).i64(tokens).buffer_mut(&mut partial).run()?;
    }
    sum(gpu, &partial, if width > 0 { blocks } else { 0 }, factor)
}

pub(super) fn backward(
    gpu: &Gpu,
    full: &Tensor,
    sparse: &Tensor,
    valid: Option<&[bool]>,
    kind: AlignmentKind,
    scale: f32,
    pulls: Pulls<'_>,
) -> Result<()> {
    let (tokens, width) = sizes(full);
    if full.is_empty() {
        return Ok(());
    }
    let valid = upload_valid(gpu, valid)?;
    let kernel = gpu.kernel(&MODULE, "alignment_bwd", &[("WIDTH", width as i64), mse(kind)])?;
    let launch = kernel.launch([tokens, 1, 1], THREADS).input(full).input(sparse);
    let mut launch = launch.optional(valid.as_ref()).i64(tokens).f32(scale);
    for gradient in [pulls.dfull, pulls.dsparse] {
        launch = match gradient {
            Some(gradient) => launch.accumulate(gradient),
            None => launch.null().i32(0),
        };
    }
    launch.run()
}

/// Tokens, and elements of a token.
fn sizes(x: &Tensor) -> (usize, usize) {
    let shape = x.shape();
    (shape[0] * shape[1], shape[2] * shape[3])
}
