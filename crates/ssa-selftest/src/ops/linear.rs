//! Matrix products: forward, both gradients, gradients that add.

use ssa_kernels::ops::linear::{linear_bwd_input, linear_bwd_weight, linear_fwd, reference};
use ssa_kernels::{DType, Tensor};

use crate::{Context, Result, round};

/// Rows, inputs and outputs: odd ones, whose rows are not aligned, and ones as in a model.
const SHAPES: [[usize; 3]; 6] =
    [[1, 1, 1], [3, 63, 5], [100, 17, 257], [63, 64, 128], [1000, 128, 384], [256, 512, 64]];

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for [rows, inputs, outputs] in SHAPES {
        context.case(format!("{rows} x {inputs} -> {outputs}"));
        let (x, x_exact) = context.normal(&[1, rows, inputs], 1.0)?;
        let (weight, weight_exact) = context.normal(&[outputs, inputs], 1.0)?;
        let (dout, dout_exact) = context.normal(&[1, rows, outputs], 1.0)?;

        let out = linear_fwd(&x, &weight)?;
        let exact = reference::forward(&x_exact, &weight_exact, inputs)?;
        context.compare("out", &out, &exact, &round(&exact))?;
        context.compare_bits("out", &out, &linear_fwd(&x, &weight)?)?;

        let device = context.device();
        let backward = || -> Result<[Tensor; 2]> {
            let mut dx = Tensor::zeros_like(&x)?;
            let mut dweight = Tensor::zeros_on(device, DType::F32, [outputs, inputs])?;
            for _ in 0..2 {
                linear_bwd_input(&dout, &weight, &mut dx)?;
                linear_bwd_weight(&dout, &x, &mut dweight)?;
            }
            Ok([dx, dweight])
        };
        let [dx, dweight] = backward()?;
        let (edx, edweight) = reference::backward(&dout_exact, &x_exact, &weight_exact, inputs)?;
        let twice =
            |values: Vec<f64>| values.into_iter().map(|value| 2.0 * value).collect::<Vec<_>>();
        // A gradient that is added to is rounded twice.
        let plain = |values: &[f64]| {
            round(&values.iter().map(|value| 2.0 * crate::bf16(value / 2.0)).collect::<Vec<_>>())
        };
        let (edx, edweight) = (twice(edx), twice(edweight));
        context.compare("dx", &dx, &edx, &plain(&edx))?;
        context.compare("dweight", &dweight, &edweight, &plain(&edweight))?;
        let again = backward()?;
        context.compare_bits("dx", &dx, &again[0])?;
        context.compare_bits("dweight", &dweight, &again[1])?;
    }
    Ok(())
}
