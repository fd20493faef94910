//! The bias of a linear map and its gradient.

use ssa_kernels::ops::bias::{bias_bwd, bias_fwd, reference};
use ssa_kernels::{DType, Tensor};

use crate::{Context, Result, round, twice};

/// Rows and widths: rows that are not aligned, and more rows than there are partial sums.
const SHAPES: [[usize; 2]; 5] = [[1, 1], [63, 63], [1000, 64], [5003, 96], [300, 1024]];

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for [rows, width] in SHAPES {
        context.case(format!("{rows} rows of {width}"));
        let (x, x_exact) = context.normal(&[1, rows, width], 1.0)?;
        let (bias, bias_exact) = context.normal(&[width], 1.0)?;
        let (dout, dout_exact) = context.normal(&[1, rows, width], 1.0)?;

        let out = bias_fwd(x.try_clone()?, &bias)?;
        let exact = reference::forward(&x_exact, &bias_exact)?;
        context.compare("out", &out, &exact, &round(&exact))?;
        // `x` was a copy that shares memory with this one.
        context.compare("x", &x, &x_exact, &x_exact)?;

        // Added once to nothing and once to the result of that.
        let backward = || -> Result<Tensor> {
            let mut dbias = Tensor::zeros_on(&x.device(), DType::F32, bias.shape())?;
            bias_bwd(&dout, &mut dbias)?;
            bias_bwd(&dout, &mut dbias)?;
            Ok(dbias)
        };
        let dbias = backward()?;
        context.compare_f32("dbias", &dbias, &twice(&reference::backward(&dout_exact, width)?))?;
        context.compare_bits("dbias", &dbias, &backward()?)?;
    }
    Ok(())
}
