//! Gates: projection and application, forward and backward.

use ssa_kernels::ops::gate::{
    GateBranch, gate_apply_bwd, gate_apply_fwd, gate_bwd, gate_fwd, reference,
};
use ssa_kernels::{DType, Tensor};

use crate::plain::{Rounding, gate_backward};
use crate::{Context, Result, added_twice, round, twice};

/// Tokens, heads, hidden size and head dimension.
const SHAPES: [[usize; 4]; 6] = [
    [1, 1, 8, 1],
    [63, 3, 17, 6],
    [1000, 16, 64, 64],
    [100, 5, 96, 96],
    [100, 32, 256, 128],
    [63, 2, 64, 256],
];

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for [tokens, heads, hidden, head_dim] in SHAPES {
        for branch in [GateBranch::Compression, GateBranch::Selection, GateBranch::Window] {
            context.case(format!("{branch:?}, {tokens} tokens, {heads} heads, {hidden} wide"));
            projection(context, [tokens, heads, hidden], branch)?;
        }
        context.case(format!("{tokens} tokens, {heads} heads of {head_dim}"));
        application(context, [tokens, heads, head_dim])?;
    }
    Ok(())
}

fn projection(
    context: &mut Context<'_>,
    [tokens, heads, hidden]: [usize; 3],
    branch: GateBranch,
) -> Result<()> {
    let (x, x_exact) = context.normal(&[1, tokens, hidden], 1.0)?;
    let (g_proj, g_proj_exact) =
        context.normal(&[3 * heads, hidden], (hidden as f32).powf(-0.5))?;
    let dgates = context.random().normal(tokens * heads);
    let dgate_exact: Vec<f64> = dgates.iter().map(|&value| f64::from(value)).collect();
    let dgate = context.f32_tensor(dgates, &[1, tokens, heads])?;

    let gate = gate_fwd(&x, &g_proj, branch)?;
    let gate_exact = reference::forward(&x_exact, &g_proj_exact, branch, hidden)?;
    context.compare_f32("gate", &gate, &gate_exact)?;
    context.compare_bits("gate", &gate, &gate_fwd(&x, &g_proj, branch)?)?;

    let device = context.device();
    let backward = || -> Result<[Tensor; 2]> {
        let mut dx = Tensor::zeros_like(&x)?;
        let mut dg_proj = Tensor::zeros_on(device, DType::F32, g_proj.shape())?;
        for _ in 0..2 {
            gate_bwd(&dgate, &gate, &x, &g_proj, branch, &mut dx, &mut dg_proj)?;
        }
        Ok([dx, dg_proj])
    };
    let [dx, dg_proj] = backward()?;
    let (edx, edg_proj) =
        reference::backward(&dgate_exact, &x_exact, &g_proj_exact, branch, hidden)?;
    let (pdx, pdg_proj) = gate_backward(
        &dgate_exact,
        &gate_exact,
        &x_exact,
        (&g_proj_exact, branch),
        hidden,
        Rounding::BF16,
    )?;
    context.compare("dx", &dx, &twice(&edx), &added_twice(&pdx))?;
    context.compare("dg_proj", &dg_proj, &twice(&edg_proj), &added_twice(&pdg_proj))?;
    let again = backward()?;
    context.compare_bits("dx", &dx, &again[0])?;
    context.compare_bits("dg_proj", &dg_proj, &again[1])
}

fn application(context: &mut Context<'_>, [tokens, heads, head_dim]: [usize; 3]) -> Result<()> {
    let shape = [1, tokens, heads, head_dim];
    let (out, out_exact) = context.normal(&shape, 1.0)?;
    let (dgated, dgated_exact) = context.normal(&shape, 1.0)?;
    let gates = context.random().normal(tokens * heads);
    let gate_exact: Vec<f64> = gates.iter().map(|&value| f64::from(value)).collect();
    let gate = context.f32_tensor(gates, &shape[..3])?;

    let gated = gate_apply_fwd(&out, &gate)?;
    let exact = reference::apply_forward(&out_exact, &gate_exact, head_dim)?;
    context.compare("gated", &gated, &exact, &round(&exact))?;

    let backward = || -> Result<[Tensor; 2]> {
        let [mut dout, mut dgate] = [Tensor::zeros_like(&out)?, Tensor::zeros_like(&gate)?];
        for _ in 0..2 {
            gate_apply_bwd(&dgated, &out, &gate, &mut dout, &mut dgate)?;
        }
        Ok([dout, dgate])
    };
    let [dout, dgate] = backward()?;
    let (edout, edgate) =
        reference::apply_backward(&dgated_exact, &out_exact, &gate_exact, head_dim)?;
    context.compare("dout", &dout, &twice(&edout), &added_twice(&edout))?;
    context.compare_f32("dgate", &dgate, &twice(&edgate))?;
    let again = backward()?;
    context.compare_bits("dout", &dout, &again[0])?;
    context.compare_bits("dgate", &dgate, &again[1])
}
