//! RMSNorm: alone and after the residual addition, both gradients.

use ssa_kernels::ops::rms_norm::{
    RmsNormOutput, add_rms_norm_fwd, reference, rms_norm_bwd, rms_norm_fwd,
};
use ssa_kernels::{DType, Tensor};

use crate::{Context, Result, added_twice, round, twice};

/// Rows and hidden sizes: rows that are not aligned, and rows that one, two and more warps share.
const SHAPES: [[usize; 2]; 7] =
    [[1, 1], [63, 63], [1000, 64], [100, 1001], [5003, 96], [1000, 2048], [63, 8192]];

const EPS: f32 = 1e-5;

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for [rows, hidden] in SHAPES {
        context.case(format!("{rows} rows of {hidden}"));
        let (x, x_exact) = context.normal(&[1, rows, hidden], 1.0)?;
        let (residual, residual_exact) = context.normal(&[1, rows, hidden], 1.0)?;
        let (weight, weight_exact) = context.normal(&[hidden], 1.0)?;
        let (dout, dout_exact) = context.normal(&[1, rows, hidden], 1.0)?;

        let norm = rms_norm_fwd(&x, &weight, EPS)?;
        let (out, rstd) = reference::forward(&x_exact, &weight_exact, f64::from(EPS))?;
        context.compare("out", &norm.out, &out, &round(&out))?;
        context.compare_f32("rstd", &norm.rstd, &rstd)?;
        context.compare_bits("out", &norm.out, &rms_norm_fwd(&x, &weight, EPS)?.out)?;
        after_addition(
            context,
            &x,
            &x_exact,
            [&residual, &weight],
            [&residual_exact, &weight_exact],
        )?;

        let [dx, dweight] = gradients(&dout, &x, &weight, &norm)?;
        let (edx, edweight) =
            reference::backward(&dout_exact, &x_exact, &weight_exact, f64::from(EPS))?;
        context.compare("dx", &dx, &twice(&edx), &added_twice(&edx))?;
        context.compare_f32("dweight", &dweight, &twice(&edweight))?;
        let again = gradients(&dout, &x, &weight, &norm)?;
        context.compare_bits("dx", &dx, &again[0])?;
        context.compare_bits("dweight", &dweight, &again[1])?;
    }
    Ok(())
}

/// Added once to nothing and once to the result of that.
fn gradients(
    dout: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    norm: &RmsNormOutput,
) -> Result<[Tensor; 2]> {
    let mut dx = Tensor::zeros_like(x)?;
    let mut dweight = Tensor::zeros_on(&x.device(), DType::F32, weight.shape())?;
    for _ in 0..2 {
        rms_norm_bwd(dout, x, weight, &norm.rstd, &mut dx, &mut dweight)?;
    }
    Ok([dx, dweight])
}

/// The sum and its norm are those of the two ops one after the other.
fn after_addition(
    context: &mut Context<'_>,
    x: &Tensor,
    x_exact: &[f64],
    [residual, weight]: [&Tensor; 2],
    [residual_exact, weight_exact]: [&[f64]; 2],
) -> Result<()> {
    let (sum, norm) = add_rms_norm_fwd(x.try_clone()?, residual, weight, EPS)?;
    let sums: Vec<f64> =
        x_exact.iter().zip(residual_exact).map(|(x, residual)| x + residual).collect();
    context.compare("sum", &sum, &sums, &round(&sums))?;
    let stored: Vec<f64> = sum.to_vec()?.into_iter().map(f64::from).collect();
    let (out, _) = reference::forward(&stored, weight_exact, f64::from(EPS))?;
    context.compare("out after addition", &norm.out, &out, &round(&out))?;
    let mut separate = x.try_clone()?;
    separate.add_assign(residual)?;
    context.compare_bits("sum", &sum, &separate)
}
