//! Linear maps on the CPU: one matrix product each.

use crate::cpu::gemm::{Matrix, MatrixMut, Output, Threads, matmul};

pub(super) fn forward(x: &[f32], weight: &[f32], out: &mut [f32], inputs: usize, outputs: usize) {
    let rows = out.len() / outputs;
    matmul(
        MatrixMut::new(out, rows, outputs),
        Output::Overwrite,
        1.0,
        Matrix::new(x, rows, inputs),
        Matrix::new(weight, outputs, inputs).t(),
        Threads::All,
    );
}

pub(super) fn backward_input(
    dout: &[f32],
    weight: &[f32],
    dx: &mut [f32],
    inputs: usize,
    outputs: usize,
) {
    let rows = dout.len() / outputs;
    matmul(
        MatrixMut::new(dx, rows, inputs),
        Output::Add,
        1.0,
        Matrix::new(dout, rows, outputs),
        Matrix::new(weight, outputs, inputs),
        Threads::All,
    );
}

pub(super) fn backward_weight(
    dout: &[f32],
    x: &[f32],
    dweight: &mut [f32],
    inputs: usize,
    outputs: usize,
) {
    let rows = dout.len() / outputs;
    matmul(
        MatrixMut::new(dweight, outputs, inputs),
        Output::Add,
        1.0,
        Matrix::new(dout, rows, outputs).t(),
        Matrix::new(x, rows, inputs),
        Threads::All,
    );
}
