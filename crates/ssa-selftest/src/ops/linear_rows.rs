//! Products of a few rows: those of decoding steps.

use ssa_kernels::ops::linear::{LinearWeight, linear_rows_fwd, reference};
use ssa_kernels::ops::rms_norm::reference as rms_norm;
use ssa_kernels::ops::step::StepOutput;
use ssa_kernels::{DType, Device, Tensor};

use crate::{Context, Result, round};

/// Inputs and outputs: those of a model, ones that are no whole steps, and ones whose rows are not
/// aligned.
const SHAPES: [[usize; 2]; 6] = [[2048, 96], [512, 2336], [96, 48], [40, 17], [33, 5], [1, 1]];
/// Rows: within a tile, a tile, several tiles, several blocks, and more than the kernels take.
const ROWS: [usize; 6] = [1, 3, 8, 13, 40, 100];
const EPS: f32 = 1e-5;

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for [inputs, outputs] in SHAPES {
        let (weight, exact_weight) = context.normal(&[2 * outputs, inputs], 0.1)?;
        let dtype = context.device().dtype();
        let maps = LinearWeight::new(&[&weight, &weight], dtype)?;
        let single = LinearWeight::new(&[&weight], dtype)?;
        for rows in ROWS {
            context.case(format!("{rows} x {inputs} -> {outputs}"));
            let (x, exact_x) = context.normal(&[1, rows, inputs], 1.0)?;
            let exact = reference::forward(&exact_x, &exact_weight, inputs)?;
            let outs = linear_rows_fwd(&x, &maps)?;
            for (map, out) in outs.iter().enumerate() {
                context.compare(&format!("map {map}"), out, &exact, &round(&exact))?;
            }
            if rows <= 64 {
                // The other rows of a call change nothing.
                let mut alone = Vec::new();
                for row in 0..rows {
                    let x = x.rows_range(row..row + 1)?;
                    alone.extend(linear_rows_fwd(&x, &single)?.swap_remove(0).into_vec()?);
                }
                let alone = Tensor::from_vec(alone, outs[0].shape())?;
                context.compare_bits("rows alone", &outs[0], &alone)?;
            }
            if let Device::Cuda(_) = context.device()
                && rows <= 64
            {
                fused(context, &x, &exact_x, (&single, &exact_weight))?;
            }
        }
    }
    Ok(())
}

/// Products with a norm before and something done with the result, against the composed references.
fn fused(
    context: &mut Context<'_>,
    x: &Tensor,
    exact_x: &[f64],
    (weight, exact_weight): (&LinearWeight, &[f64]),
) -> Result<()> {
    let (rows, inputs) = (x.rows(), x.last_dim());
    let outputs = exact_weight.len() / inputs;
    let (norm, exact_norm) = context.normal(&[inputs], 1.0)?;
    let (residual, exact_residual) = context.normal(&[rows, outputs], 1.0)?;
    let device = context.device();
    let zeros = |dtype, columns: usize| Tensor::zeros_on(device, dtype, [rows, columns]);

    let (normed, _) = rms_norm::forward(exact_x, &exact_norm, f64::from(EPS))?;
    let exact = reference::forward(&normed, exact_weight, inputs)?;
    let plain = reference::forward(&round(&normed), exact_weight, inputs)?;
    let mut out = zeros(DType::F32, outputs)?;
    weight.step(x, Some((&norm, EPS)), StepOutput::F32(&mut out))?;
    context.compare("normed", &out, &exact, &plain)?;

    let silu = |gate: f64| gate / (1.0 + (-gate).exp());
    let swiglu = |values: &[f64]| -> Vec<f64> {
        let rows = values.chunks_exact(outputs).map(|row| row.split_at(outputs / 2));
        rows.flat_map(|(gate, up)| gate.iter().zip(up).map(|(gate, up)| silu(*gate) * up)).collect()
    };
    let mut out = zeros(DType::Bf16, outputs / 2)?;
    weight.step(x, Some((&norm, EPS)), StepOutput::SwiGlu(&mut out))?;
    context.compare("swiglu", &out, &swiglu(&exact), &round(&swiglu(&round(&plain))))?;

    let exact = reference::forward(exact_x, exact_weight, inputs)?;
    let sum = |values: &[f64]| -> Vec<f64> {
        values.iter().zip(&exact_residual).map(|(value, residual)| value + residual).collect()
    };
    let mut out = residual;
    weight.step(x, None, StepOutput::Add(&mut out))?;
    context.compare("added", &out, &sum(&exact), &round(&sum(&round(&exact))))
}
