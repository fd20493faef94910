//! Linear maps on a GPU: one matrix product each.

use crate::cuda::Gpu;
use crate::cuda::matmul::matmul;
use crate::{Result, Tensor};

pub(super) fn forward(gpu: &Gpu, x: &Tensor, weight: &Tensor, out: &mut Tensor) -> Result<()> {
    let out_sizes = sizes(out);
    let (x, weight) = (x.matrix(sizes(x))?, weight.matrix(sizes(weight))?);
    matmul(gpu, out.output_matrix(out_sizes)?, 1.0, x, weight.t())
}

pub(super) fn backward_input(
    gpu: &Gpu,
    dout: &Tensor,
    weight: &Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    let dx_sizes = sizes(dx);
    let (dout, weight) = (dout.matrix(sizes(dout))?, weight.matrix(sizes(weight))?);
    matmul(gpu, dx.gradient_matrix(dx_sizes)?, 1.0, dout, weight)
}

pub(super) fn backward_weight(
    gpu: &Gpu,
    dout: &Tensor,
    x: &Tensor,
    dweight: &mut Tensor,
) -> Result<()> {
    let dweight_sizes = sizes(dweight);
    let (dout, x) = (dout.matrix(sizes(dout))?, x.matrix(sizes(x))?);
    matmul(gpu, dweight.gradient_matrix(dweight_sizes)?, 1.0, dout.t(), x)
}

fn sizes(tensor: &Tensor) -> [usize; 2] {
    [tensor.rows(), tensor.last_dim()]
}
