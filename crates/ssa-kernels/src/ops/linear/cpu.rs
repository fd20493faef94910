//! Linear maps on the CPU: one matrix product each. `sizes` is `[I, O]`.

use crate::cpu::gemm::{HostMatrix, HostMatrixMut, Output, Threads, matmul};

pub(super) fn forward(x: &[f32], weight: &[f32], out: &mut [f32], sizes: [usize; 2]) {
    let [inputs, outputs] = sizes;
    let rows = out.len() / outputs;
    matmul(
        HostMatrixMut::new(out, rows, outputs),
        Output::Overwrite,
        1.0,
        HostMatrix::new(x, rows, inputs),
        HostMatrix::new(weight, outputs, inputs).t(),
        Threads::All,
    );
}

pub(super) fn backward_input(dout: &[f32], weight: &[f32], dx: &mut [f32], sizes: [usize; 2]) {
    let [inputs, outputs] = sizes;
    let rows = dout.len() / outputs;
    matmul(
        HostMatrixMut::new(dx, rows, inputs),
        Output::Add,
        1.0,
        HostMatrix::new(dout, rows, outputs),
        HostMatrix::new(weight, outputs, inputs),
        Threads::All,
    );
}

pub(super) fn backward_weight(dout: &[f32], x: &[f32], dweight: &mut [f32], sizes: [usize; 2]) {
    let [inputs, outputs] = sizes;
    let rows = dout.len() / outputs;
    matmul(
        HostMatrixMut::new(dweight, outputs, inputs),
        Output::Add,
        1.0,
        HostMatrix::new(dout, rows, outputs).t(),
        HostMatrix::new(x, rows, inputs),
        Threads::All,
    );
}
