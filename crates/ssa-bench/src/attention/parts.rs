//! The parts of attention and their work.
//!
//! Operations are counted by formula: two per multiply-add, two products in the forward pass
//! (scores, and weighted values), five in the backward pass. Query-key pairs are counted by
//! definition, without masked elements of a tile.

use ssa_kernels::ops::attention::alignment::AlignmentOptions;
use ssa_kernels::ops::attention::full::{full_attention_bwd, full_attention_fwd};
use ssa_kernels::ops::attention::gated_pair::{
    GatedPair, GatedPairGrads, PairAlignment, gated_pair_bwd, gated_pair_fwd,
};
use ssa_kernels::ops::attention::pooling::mean_pool_fwd;
use ssa_kernels::ops::attention::selection::{BlockIndices, SelectionRule, select_blocks};
use ssa_kernels::ops::attention::sparse::{sparse_attention_bwd, sparse_attention_fwd};
use ssa_kernels::ops::attention::{AttentionGrads, AttentionMode, AttentionOutput};
use ssa_kernels::ops::gate::{gate_apply_bwd, gate_apply_fwd};
use ssa_kernels::{DType, KernelError, Tensor};
use ssa_model::SparseBudget;

use super::{Bench, Inputs, Part};
use crate::{Result, local_selection};

const FORWARD_PRODUCTS: f64 = 2.0;
const BACKWARD_PRODUCTS: f64 = 5.0;

pub(super) fn full(bench: &mut Bench<'_>, inputs: &Inputs) -> Result<()> {
    let tokens = bench.tokens as f64;
    let product = 2.0 * inputs.q_width as f64 * tokens * (tokens + 1.0) / 2.0;
    let forward = |set: &[Tensor; 4]| full_attention_fwd(&inputs.call(set));
    let backward = |set: &[Tensor; 4], output: &AttentionOutput| {
        let [q, k, v, dout] = set;
        let mut grads = AttentionGrads::zeros_like(q, k, v)?;
        full_attention_bwd(dout, &inputs.call(set), output, &mut grads)
    };

    let part = Part::new("full forward").flops(FORWARD_PRODUCTS * product);
    bench.measure(part, inputs, |_, set| forward(set).map(drop))?;
    let part = Part::new("full backward").flops(BACKWARD_PRODUCTS * product);
    if let Some(outputs) = bench.need(part, inputs.each(forward))? {
        bench.measure(part, inputs, |place, set| backward(set, &outputs[place]))?;
    }
    let part = Part::new("full forward + backward")
        .flops((FORWARD_PRODUCTS + BACKWARD_PRODUCTS) * product);
    bench.measure(part, inputs, |_, set| backward(set, &forward(set)?))
}

pub(super) fn sparse(bench: &mut Bench<'_>, inputs: &Inputs, budget: SparseBudget) -> Result<()> {
    let (tokens, size) = (bench.tokens, budget.block_size());
    let (documents, scale) = (&inputs.documents, inputs.softmax_scale);
    let options = budget.selection(SelectionRule::Exact);
    let pool = |[_, k, ..]: &[Tensor; 4]| mean_pool_fwd(k, documents, size);
    let choose = |[q, ..]: &[Tensor; 4], pooled: &Tensor| {
        select_blocks(q, pooled, documents, &options, scale)
    };
    let select = |set: &[Tensor; 4]| choose(set, &pool(set)?);
    let of_budget = |name| Part { budget: Some(budget), ..Part::new(name) };

    let element = bench.meter.device().dtype().size();
    let part =
        of_budget("pooling").bytes((tokens + tokens.div_ceil(size)) * inputs.kv_width * element);
    bench.measure(part, inputs, |_, set| pool(set).map(drop))?;
    // Each query is scored against the complete blocks up to its own, unless all are selected.
    let complete: usize = (0..tokens).map(|token| (token + 1) / size).sum();
    let mut part = of_budget("selection");
    if tokens.div_ceil(size) > budget.block_counts() {
        part = part.flops(2.0 * inputs.q_width as f64 * complete as f64);
    }
    if let Some(pooled) = bench.need(part, inputs.each(pool))? {
        bench.measure(part, inputs, |place, set| choose(set, &pooled[place]).map(drop))?;
    }

    let random = Part { selection: Some("random"), ..of_budget("sparse forward") };
    if let Some(indices) = bench.need(random, inputs.each(select))? {
        given_blocks(bench, inputs, random, |place| &indices[place])?;
    }
    let local = Part { selection: Some("local"), ..random };
    let device = bench.meter.device().clone();
    let made =
        local_selection(tokens, inputs.kv_heads, budget).and_then(|made| made.to_device(&device));
    if let Some(indices) = bench.need(local, made)? {
        given_blocks(bench, inputs, local, |_| &indices)?;
    }

    let part = Part { name: "selection + sparse forward", ..random };
    bench.measure(part, inputs, |_, set| sparse_forward(inputs, set, &select(set)?).map(drop))?;
    let part = Part { name: "selection + sparse forward + backward", ..random };
    bench.measure(part, inputs, |_, set| {
        let indices = select(set)?;
        sparse_backward(inputs, set, &sparse_forward(inputs, set, &indices)?, &indices)
    })
}

/// Sparse attention, forward and backward, for given blocks.
fn given_blocks<'a>(
    bench: &mut Bench<'_>,
    inputs: &Inputs,
    part: Part,
    indices: impl Fn(usize) -> &'a BlockIndices,
) -> Result<()> {
    let Some(pairs) = bench.need(part, pairs(indices(0)))? else { return Ok(()) };
    let product = 2.0 * pairs as f64 * (inputs.q_width / inputs.kv_heads) as f64;
    let part = part.flops(FORWARD_PRODUCTS * product);
    bench.measure(part, inputs, |place, set| {
        sparse_forward(inputs, set, indices(place)).map(drop)
    })?;

    let part = Part { name: "sparse backward", ..part }.flops(BACKWARD_PRODUCTS * product);
    let mut place = 0..;
    let outputs =
        inputs.each(|set| sparse_forward(inputs, set, indices(place.next().unwrap_or(0))));
    if let Some(outputs) = bench.need(part, outputs)? {
        bench.measure(part, inputs, |place, set| {
            sparse_backward(inputs, set, &outputs[place], indices(place))
        })?;
    }
    Ok(())
}

fn sparse_forward(
    inputs: &Inputs,
    set: &[Tensor; 4],
    indices: &BlockIndices,
) -> Result<AttentionOutput, KernelError> {
    sparse_attention_fwd(&inputs.call(set), indices)
}

fn sparse_backward(
    inputs: &Inputs,
    set: &[Tensor; 4],
    output: &AttentionOutput,
    indices: &BlockIndices,
) -> Result<(), KernelError> {
    let [q, k, v, dout] = set;
    let mut grads = AttentionGrads::zeros_like(q, k, v)?;
    sparse_attention_bwd(dout, &inputs.call(set), indices, output, &mut grads)
}

/// Number of query-key pairs over all tokens and key/value heads.
fn pairs(indices: &BlockIndices) -> Result<usize, KernelError> {
    let indices = indices.to_host()?;
    let size = indices.block_size();
    let seen = |(token, blocks): (usize, &[i32])| {
        let used = blocks.iter().filter(|&&block| block >= 0).count();
        // The earlier blocks completely, and the own block up to the token.
        used.saturating_sub(1) * size + token % size + 1
    };
    let heads = indices.kv_heads();
    let rows = indices.as_slice().chunks(indices.block_counts()).enumerate();
    Ok(rows.map(|(row, blocks)| seen((row / heads, blocks))).sum())
}

/// Two tensors of a set with the shape of an output.
fn pair<'a>(full: &'a Tensor, sparse: &'a Tensor, gate: &'a Tensor) -> GatedPair<'a> {
    GatedPair { full, sparse, gate, chosen: AttentionMode::Sparse }
}

pub(super) fn gate_and_alignment(bench: &mut Bench<'_>, inputs: &Inputs) -> Result<()> {
    let device = bench.meter.device().clone();
    let q_bytes = bench.tokens * inputs.q_width * device.dtype().size();
    let shape = inputs.sets[0][0].shape();
    let gate = Tensor::from_vec(vec![0.5; shape[..3].iter().product()], &shape[..3])
        .and_then(|gate| gate.to_device(&device, DType::F32));
    let part = Part::new("gate and alignment forward").bytes(3 * q_bytes);
    let Some(gate) = bench.need(part, gate)? else { return Ok(()) };
    let options = AlignmentOptions::default();
    let alignment = PairAlignment { options: &options, gated: true, valid: None };
    bench.measure(part, inputs, |_, [full, .., sparse]| {
        gated_pair_fwd(&pair(full, sparse, &gate), &alignment).map(drop)
    })?;
    let part = Part::new("gate and alignment backward").bytes(5 * q_bytes);
    bench.measure(part, inputs, |_, [full, .., sparse]| {
        let [mut dfull, mut dsparse] = [Tensor::zeros_like(full)?, Tensor::zeros_like(sparse)?];
        let mut dgate = Tensor::zeros_like(&gate)?;
        let grads = GatedPairGrads { dfull: &mut dfull, dsparse: &mut dsparse, dgate: &mut dgate };
        gated_pair_bwd(sparse, &pair(full, sparse, &gate), &alignment, 1e-3, grads)
    })?;

    let part = Part::new("gate forward").bytes(2 * q_bytes);
    bench.measure(part, inputs, |_, [out, ..]| gate_apply_fwd(out, &gate).map(drop))?;
    let part = Part::new("gate backward").bytes(3 * q_bytes);
    bench.measure(part, inputs, |_, [out, .., dgated]| {
        let [mut dout, mut dgate] = [Tensor::zeros_like(out)?, Tensor::zeros_like(&gate)?];
        gate_apply_bwd(dgated, out, &gate, &mut dout, &mut dgate)
    })
}
