//! Full and sparse attention in one call: both outputs, the gradients of both together, gradients that add.

use ssa_kernels::ops::attention::full_and_sparse::{
    FullAndSparse, full_and_sparse_attention_bwd, full_and_sparse_attention_fwd,
};
use ssa_kernels::ops::attention::reference::Inputs;
use ssa_kernels::ops::attention::selection::BlockIndices;
use ssa_kernels::ops::attention::{AttentionGrads, AttentionOutput, full, sparse};
use ssa_kernels::{Documents, Tensor};

use super::attention::{SIZES, Sizes, documents};
use crate::plain::attention as plain;
use crate::{Context, Result, bf16};

/// Block size and number of blocks, for each of the sizes.
const BUDGETS: [[usize; 2]; 12] = [
    [16, 4],
    [16, 2],
    [16, 3],
    [16, 6],
    [32, 4],
    [16, 8],
    [64, 3],
    [16, 1],
    [8, 5],
    [16, 4],
    [128, 1],
    // All blocks.
    [16, 100],
];

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    SIZES.iter().zip(BUDGETS).try_for_each(|(sizes, budget)| check(context, sizes, budget))
}

fn check(context: &mut Context<'_>, sizes: &Sizes, [block_size, block_counts]: [usize; 2]) -> Result<()> {
    let Sizes { rows: [rows, tokens], heads: [kv_heads, group], head_dim, longest } = *sizes;
    context.case(format!(
        "B {rows} T {tokens} H {kv_heads} G {group} D {head_dim} documents up to {longest} {block_size}x{block_counts}"
    ));
    let documents = documents(context, sizes)?;
    let blocks = selection(context, &documents, kv_heads, [block_size, block_counts])?;
    let (q_heads, scale) = (kv_heads * group, (head_dim as f32).powf(-0.5));
    let (q_shape, k_shape) = ([rows, tokens, q_heads, head_dim], [rows, tokens, kv_heads, head_dim]);
    let (q, exact_q) = context.normal(&q_shape, 1.0)?;
    let (k, exact_k) = context.normal(&k_shape, 1.0)?;
    let (v, exact_v) = context.normal(&k_shape, 1.0)?;
    let (full_dout, exact_full_dout) = context.normal(&q_shape, 1.0)?;
    let (sparse_dout, exact_sparse_dout) = context.normal(&q_shape, 1.0)?;
    let inputs = Inputs {
        q: &exact_q,
        k: &exact_k,
        v: &exact_v,
        q_heads,
        kv_heads,
        head_dim,
        softmax_scale: f64::from(scale),
    };

    let forward = || full_and_sparse_attention_fwd(&q, &k, &v, &blocks, &documents, scale);
    let backward = |output: &FullAndSparse<AttentionOutput>| -> Result<AttentionGrads> {
        let mut grads = AttentionGrads::zeros_like(&q, &k, &v);
        // Once sets, once adds.
        for _ in 0..2 {
            let dout = FullAndSparse { full: &full_dout, sparse: &sparse_dout };
            full_and_sparse_attention_bwd(dout, &q, &k, &v, output, &blocks, &documents, scale, &mut grads)?;
        }
        Ok(grads)
    };
    let output = forward()?;
    let grads = backward(&output)?;

    let starts: Vec<usize> = documents.ranges().flat_map(|range| vec![range.start; range.len()]).collect();
    let all = |token: usize, _: usize| (starts[token]..=token).collect::<Vec<_>>();
    let selected = |token: usize, kv_head: usize| {
        let is_selected = |key: &usize| {
            let block = ((key - starts[token]) / block_size) as i32;
            blocks.selected(token, kv_head).contains(&block)
        };
        (starts[token]..=token).filter(is_selected).collect::<Vec<_>>()
    };
    let plain_full = plain(&exact_full_dout, &inputs, all);
    let plain_sparse = plain(&exact_sparse_dout, &inputs, selected);
    let (exact_full, exact_full_lse) = full::reference::forward(&inputs, &documents);
    let (exact_sparse, exact_sparse_lse) = sparse::reference::forward(&inputs, &blocks);
    context.compare("full out", &output.full.out, &exact_full, &plain_full.out)?;
    context.compare("full lse", &output.full.lse, &exact_full_lse, &plain_full.lse)?;
    context.compare("sparse out", &output.sparse.out, &exact_sparse, &plain_sparse.out)?;
    context.compare("sparse lse", &output.sparse.lse, &exact_sparse_lse, &plain_sparse.lse)?;

    let (full_dq, full_dk, full_dv) = full::reference::backward(&exact_full_dout, &inputs, &documents);
    let (sparse_dq, sparse_dk, sparse_dv) = sparse::reference::backward(&exact_sparse_dout, &inputs, &blocks);
    for (name, grad, exact, plain) in [
        ("dq", &grads.dq, [full_dq, sparse_dq], [plain_full.dq, plain_sparse.dq]),
        ("dk", &grads.dk, [full_dk, sparse_dk], [plain_full.dk, plain_sparse.dk]),
        ("dv", &grads.dv, [full_dv, sparse_dv], [plain_full.dv, plain_sparse.dv]),
    ] {
        // Both streams, twice; plainly, one after the other, and rounded every time.
        let twice = |[full, sparse]: [Vec<f64>; 2]| {
            full.iter().zip(sparse).map(|(a, b)| 2.0 * (a + b)).collect::<Vec<_>>()
        };
        let step = |sum: f64, full: f64, sparse: f64| bf16(bf16(sum + full) + sparse);
        let [full, sparse] = &plain;
        let plain: Vec<f64> = full.iter().zip(sparse).map(|(&a, &b)| step(step(0.0, a, b), a, b)).collect();
        let exact = twice(exact);
        context.compare(name, grad, &exact, &plain)?;
    }

    let again = forward()?;
    let grads_again = backward(&again)?;
    let pairs: [(&str, &Tensor, &Tensor); 7] = [
        ("full out", &output.full.out, &again.full.out),
        ("full lse", &output.full.lse, &again.full.lse),
        ("sparse out", &output.sparse.out, &again.sparse.out),
        ("sparse lse", &output.sparse.lse, &again.sparse.lse),
        ("dq", &grads.dq, &grads_again.dq),
        ("dk", &grads.dk, &grads_again.dk),
        ("dv", &grads.dv, &grads_again.dv),
    ];
    pairs.into_iter().try_for_each(|(name, first, second)| context.compare_bits(name, first, second))
}

/// Random blocks of every token, its own among them.
fn selection(
    context: &mut Context<'_>,
    documents: &Documents,
    kv_heads: usize,
    [block_size, block_counts]: [usize; 2],
) -> Result<BlockIndices> {
    let mut indices = Vec::new();
    for position in documents.positions() {
        let current = position / block_size;
        for _ in 0..kv_heads {
            // Draws may meet, so a row may have unused slots though there are blocks left.
            let drawn = context.random().below(current as u32 + 1, block_counts - 1);
            let mut row: Vec<i32> = drawn.into_iter().map(u32::cast_signed).collect();
            row.push(current as i32);
            row.sort_unstable();
            row.dedup();
            row.resize(block_counts, -1);
            indices.extend(row);
        }
    }
    BlockIndices::from_vec(indices, documents, kv_heads, block_size, block_counts)
}
