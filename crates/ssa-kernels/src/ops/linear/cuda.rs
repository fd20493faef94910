//! Linear maps on a GPU: one matrix product each.

use crate::cuda::Gpu;
use crate::cuda::matmul::{Matrix, MatrixMut, matmul};
use crate::{Result, Tensor};

pub(super) fn forward(gpu: &Gpu, x: &Tensor, weight: &Tensor, out: &mut Tensor) -> Result<()> {
    let out_sizes = sizes(out);
    let (x, weight) = (Matrix::new(x, sizes(x))?, Matrix::new(weight, sizes(weight))?);
    matmul(gpu, MatrixMut::output(out, out_sizes)?, 1.0, x, weight.t())
}

pub(super) fn backward_input(
    gpu: &Gpu,
    dout: &Tensor,
    weight: &Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    let dx_sizes = sizes(dx);
    let (dout, weight) = (Matrix::new(dout, sizes(dout))?, Matrix::new(weight, sizes(weight))?);
    matmul(gpu, MatrixMut::accumulate(dx, dx_sizes)?, 1.0, dout, weight)
}

pub(super) fn backward_weight(
    gpu: &Gpu,
    dout: &Tensor,
    x: &Tensor,
    dweight: &mut Tensor,
) -> Result<()> {
    let dweight_sizes = sizes(dweight);
    let (dout, x) = (Matrix::new(dout, sizes(dout))?, Matrix::new(x, sizes(x))?);
    matmul(gpu, MatrixMut::accumulate(dweight, dweight_sizes)?, 1.0, dout.t(), x)
}

fn sizes(tensor: &Tensor) -> [usize; 2] {
    [tensor.rows(), tensor.last_dim()]
}
