//! Sparse attention: forward, all gradients, gradients that add.

use std::collections::BTreeSet;

use ssa_kernels::Documents;
use ssa_kernels::ops::attention::selection::BlockIndices;
use ssa_kernels::ops::attention::sparse::{reference, sparse_attention_bwd, sparse_attention_fwd};
use ssa_kernels::ops::attention::{AttentionGrads, AttentionOutput};

use super::attention::AttentionInputs;
use crate::plain::attention::{self, Roundings, Visible};
use crate::{Context, Result, twice};

/// Tokens, query heads, key/value heads, head size, block size, block counts (0: all blocks),
/// longest document.
const SHAPES: [[usize; 7]; 21] = [
    [1, 16, 1, 64, 16, 4, 1],
    [63, 16, 1, 64, 16, 2, 63],
    [100, 32, 2, 64, 16, 3, 100],
    [400, 32, 2, 64, 16, 16, 400],
    [400, 32, 2, 64, 16, 5, 60],
    [400, 16, 1, 64, 64, 3, 400],
    [300, 32, 2, 64, 32, 4, 200],
    [400, 16, 1, 64, 128, 2, 400],
    [300, 16, 1, 64, 96, 2, 250],
    [300, 16, 1, 64, 16, 0, 300],
    [300, 16, 1, 64, 16, 30, 300],
    [300, 16, 1, 128, 16, 6, 300],
    [200, 16, 1, 128, 64, 2, 150],
    [1000, 1, 1, 64, 16, 4, 1000],
    [300, 3, 1, 16, 7, 5, 300],
    [200, 48, 2, 80, 24, 3, 200],
    [200, 4, 2, 256, 32, 3, 200],
    [200, 8, 1, 64, 1, 9, 130],
    // Heads that are no whole steps of a product.
    [150, 6, 2, 20, 8, 3, 100],
    [130, 16, 1, 100, 16, 4, 130],
    [90, 2, 2, 255, 16, 2, 60],
];

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    SHAPES.iter().try_for_each(|&shape| check(context, shape))
}

fn check(context: &mut Context<'_>, shape: [usize; 7]) -> Result<()> {
    let [tokens, q_heads, kv_heads, head_dim, ..] = shape;
    let (documents, block_indices) = selection(context, &shape)?;
    let q_shape = [1, tokens, q_heads, head_dim];
    let inputs = AttentionInputs::new(context, &q_shape, &[1, tokens, kv_heads, head_dim])?;
    let (dout, exact_dout) = context.normal(&q_shape, 1.0)?;
    let (call, inputs) = (inputs.call(&documents), inputs.exact());
    let forward = || sparse_attention_fwd(&call, &block_indices);
    let backward = |output: &AttentionOutput| -> Result<AttentionGrads> {
        let mut grads = AttentionGrads::zeros_like(call.q, call.k, call.v)?;
        // Once sets, once adds.
        for _ in 0..2 {
            sparse_attention_bwd(&dout, &call, &block_indices, output, &mut grads)?;
        }
        Ok(grads)
    };
    let selected = block_indices.to_host()?;
    let (exact_out, exact_lse) = reference::forward(&inputs, &selected)?;
    let (dq, dk, dv) = reference::backward(&exact_dout, &inputs, &selected)?;
    let visible = Visible::sparse(selected);
    let (plain_out, plain_lse) = attention::forward(&inputs, &visible, Roundings::BF16);
    let plain_grads =
        attention::backward(&exact_dout, &plain_out, &inputs, &visible, Roundings::BF16);

    let output = forward()?;
    context.compare("out", &output.out, &exact_out, &plain_out)?;
    context.compare("lse", &output.lse, &exact_lse, &plain_lse)?;
    let grads = backward(&output)?;
    let exact_grads = [("dq", &grads.dq, dq), ("dk", &grads.dk, dk), ("dv", &grads.dv, dv)];
    for ((name, grad, exact), plain) in exact_grads.into_iter().zip(plain_grads) {
        let [exact, plain] = [exact, plain].map(|values| twice(&values));
        if exact.iter().all(|&value| value == 0.0) {
            // A token that sees itself alone: terms of order one cancel.
            context.compare_within(name, &grad.to_vec()?, &exact, 1e-4);
        } else {
            context.compare(name, grad, &exact, &plain)?;
        }
    }
    let again = forward()?;
    let grads_again = backward(&again)?;
    for (name, first, second) in [
        ("out", &output.out, &again.out),
        ("lse", &output.lse, &again.lse),
        ("dq", &grads.dq, &grads_again.dq),
        ("dk", &grads.dk, &grads_again.dk),
        ("dv", &grads.dv, &grads_again.dv),
    ] {
        context.compare_bits(name, first, second)?;
    }
    Ok(())
}

/// Begins the case of a shape as in [`SHAPES`]: its documents, and blocks that are selected in
/// them.
pub(super) fn selection(
    context: &mut Context<'_>,
    shape: &[usize; 7],
) -> Result<(Documents, BlockIndices)> {
    let &[tokens, q_heads, kv_heads, head_dim, block_size, block_counts, longest] = shape;
    context.case(format!(
        "T {tokens} HQ {q_heads} H {kv_heads} D {head_dim} {block_size}x{block_counts}, \
         documents to {longest}"
    ));
    let documents = Documents::from_cu_seqlens(context.random().cu_seqlens(tokens, longest))?;
    let block_indices = match block_counts {
        0 => BlockIndices::all(&documents, kv_heads, block_size)?,
        _ => random_selection(context, &documents, kv_heads, block_size, block_counts)?,
    };
    Ok((documents, block_indices))
}

/// The own block and random earlier ones; now and then the first, so that lists differ in length.
fn random_selection(
    context: &mut Context<'_>,
    documents: &Documents,
    kv_heads: usize,
    block_size: usize,
    block_counts: usize,
) -> Result<BlockIndices> {
    let mut indices = Vec::new();
    for position in documents.positions() {
        let current = (position / block_size) as u32;
        for _ in 0..kv_heads {
            let mut row = BTreeSet::from([current]);
            if block_counts > 1 && position % 3 > 0 {
                row.insert(0);
            }
            while row.len() < block_counts.min(current as usize + 1) {
                row.extend(context.random().below(current, 1));
            }
            indices.extend(row.iter().map(|&block| block as i32));
            indices.extend(std::iter::repeat_n(-1, block_counts - row.len()));
        }
    }
    BlockIndices::from_vec(indices, documents, kv_heads, block_size, block_counts)
}
