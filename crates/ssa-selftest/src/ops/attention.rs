//! Full, window and compression attention: forward, all gradients, gradients that add.

use ssa_kernels::ops::attention::compression::{
    self, compression_attention_bwd, compression_attention_fwd,
};
use ssa_kernels::ops::attention::full::{self, full_attention_bwd, full_attention_fwd};
use ssa_kernels::ops::attention::reference::AttentionInputs as ExactInputs;
use ssa_kernels::ops::attention::window::{self, window_attention_bwd, window_attention_fwd};
use ssa_kernels::ops::attention::{AttentionCall, AttentionGrads, AttentionOutput};
use ssa_kernels::{Documents, Tensor};

use crate::plain::attention::{self as plain, Roundings, Visible};
use crate::{Context, Result, twice};

/// Sizes of a case.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Rows and their tokens.
    pub(super) rows: [usize; 2],
    /// Key/value heads and query heads of each.
    pub(super) heads: [usize; 2],
    pub(super) head_dim: usize,
    /// Documents are cut at random, not longer than this.
    pub(super) longest: usize,
}

const fn sizes(rows: [usize; 2], heads: [usize; 2], head_dim: usize, longest: usize) -> Sizes {
    Sizes { rows, heads, head_dim, longest }
}

/// Lengths that fill no tile, groups and head sizes on and off the fast paths, many short
/// documents, one long.
pub(super) const SIZES: [Sizes; 15] = [
    sizes([1, 1], [1, 1], 64, 1),
    sizes([1, 63], [2, 16], 64, 63),
    sizes([2, 100], [1, 16], 128, 100),
    sizes([1, 600], [2, 16], 64, 600),
    sizes([1, 400], [1, 16], 128, 300),
    sizes([1, 1000], [1, 1], 64, 1000),
    sizes([1, 700], [1, 3], 64, 700),
    sizes([3, 100], [2, 16], 64, 4),
    sizes([1, 300], [2, 3], 16, 200),
    sizes([1, 200], [1, 3], 80, 150),
    sizes([1, 130], [1, 4], 192, 130),
    sizes([1, 150], [1, 2], 256, 100),
    // Heads that are no whole vectors.
    sizes([2, 70], [2, 3], 20, 60),
    sizes([1, 90], [1, 16], 100, 90),
    sizes([1, 80], [2, 1], 255, 50),
];

/// An attention whose keys a query sees in a row.
#[derive(Clone, Copy)]
enum Kind {
    Full,
    /// Tokens of the window.
    Window(usize),
    /// Tokens of a block.
    Compression(usize),
}

pub(crate) fn run_full(context: &mut Context<'_>) -> Result<()> {
    SIZES.iter().try_for_each(|sizes| check(context, Kind::Full, sizes))
}

pub(crate) fn run_window(context: &mut Context<'_>) -> Result<()> {
    for (sizes, window_size) in
        SIZES.iter().zip([1, 1, 7, 100, 64, 512, 65, 3, 16, 1000, 33, 20, 9, 30, 5])
    {
        check(context, Kind::Window(window_size), sizes)?;
    }
    Ok(())
}

pub(crate) fn run_compression(context: &mut Context<'_>) -> Result<()> {
    for (sizes, block_size) in SIZES.iter().zip([1, 16, 16, 4, 5, 1, 64, 3, 8, 3, 2, 16, 4, 16, 7])
    {
        check(context, Kind::Compression(block_size), sizes)?;
    }
    Ok(())
}

/// Random queries, keys and values, on the device and exactly, and the usual scale of their scores.
pub(super) struct AttentionInputs {
    pub(super) q: Tensor,
    pub(super) k: Tensor,
    pub(super) v: Tensor,
    pub(super) scale: f32,
    exact: [Vec<f64>; 3],
}

impl AttentionInputs {
    /// q of this shape, k and v of that: the last two axes are heads and their elements.
    pub(super) fn new(
        context: &mut Context<'_>,
        q_shape: &[usize],
        k_shape: &[usize],
    ) -> Result<Self> {
        let (q, exact_q) = context.normal(q_shape, 1.0)?;
        let (k, exact_k) = context.normal(k_shape, 1.0)?;
        let (v, exact_v) = context.normal(k_shape, 1.0)?;
        let scale = (q.last_dim() as f32).powf(-0.5);
        Ok(Self { q, k, v, scale, exact: [exact_q, exact_k, exact_v] })
    }

    /// The call of an op on these inputs.
    pub(super) fn call<'a>(&'a self, documents: &'a Documents) -> AttentionCall<'a> {
        let Self { q, k, v, scale, .. } = self;
        AttentionCall { q, k, v, documents, softmax_scale: *scale }
    }

    /// As the references take them.
    pub(super) fn exact(&self) -> ExactInputs<'_> {
        let heads = |x: &Tensor| x.shape()[x.shape().len() - 2];
        let [q, k, v] = &self.exact;
        let (q_heads, kv_heads, head_dim) = (heads(&self.q), heads(&self.k), self.q.last_dim());
        let softmax_scale = f64::from(self.scale);
        ExactInputs { q, k, v, q_heads, kv_heads, head_dim, softmax_scale }
    }
}

/// Random documents of these sizes.
pub(super) fn documents(context: &mut Context<'_>, sizes: &Sizes) -> Result<Documents> {
    let [rows, tokens] = sizes.rows;
    let mut cu_seqlens = vec![0];
    for row in 0..rows {
        let borders = context.random().cu_seqlens(tokens, sizes.longest);
        cu_seqlens.extend(borders[1..].iter().map(|border| row * tokens + border));
    }
    Documents::from_cu_seqlens(cu_seqlens)
}

fn check(context: &mut Context<'_>, kind: Kind, sizes: &Sizes) -> Result<()> {
    let Sizes { rows: [rows, tokens], heads: [kv_heads, group], head_dim, longest } = *sizes;
    let setting = match kind {
        Kind::Full => String::new(),
        Kind::Window(window_size) => format!(" window {window_size}"),
        Kind::Compression(block_size) => format!(" blocks of {block_size}"),
    };
    context.case(format!(
        "B {rows} T {tokens} H {kv_heads} G {group} D {head_dim} documents up to {longest}{setting}"
    ));
    let documents = documents(context, sizes)?;
    let k_shape = match kind {
        Kind::Full | Kind::Window(_) => vec![rows, tokens, kv_heads, head_dim],
        Kind::Compression(block_size) => vec![documents.blocks(block_size), kv_heads, head_dim],
    };
    let q_shape = [rows, tokens, kv_heads * group, head_dim];
    let inputs = AttentionInputs::new(context, &q_shape, &k_shape)?;
    let (dout, exact_dout) = context.normal(&q_shape, 1.0)?;
    let (call, inputs) = (inputs.call(&documents), inputs.exact());

    let forward = || match kind {
        Kind::Full => full_attention_fwd(&call),
        Kind::Window(window_size) => window_attention_fwd(&call, window_size),
        Kind::Compression(block_size) => compression_attention_fwd(&call, block_size),
    };
    let backward = |output: &AttentionOutput| -> Result<AttentionGrads> {
        let mut grads = AttentionGrads::zeros_like(call.q, call.k, call.v)?;
        // Once sets, once adds.
        for _ in 0..2 {
            match kind {
                Kind::Full => full_attention_bwd(&dout, &call, output, &mut grads)?,
                Kind::Window(size) => {
                    window_attention_bwd(&dout, &call, size, output, &mut grads)?;
                }
                Kind::Compression(size) => {
                    compression_attention_bwd(&dout, &call, size, output, &mut grads)?;
                }
            }
        }
        Ok(grads)
    };
    let ((exact_out, exact_lse), exact_grads) = match kind {
        Kind::Full => (
            full::reference::forward(&inputs, &documents)?,
            full::reference::backward(&exact_dout, &inputs, &documents)?,
        ),
        Kind::Window(size) => (
            window::reference::forward(&inputs, &documents, size)?,
            window::reference::backward(&exact_dout, &inputs, &documents, size)?,
        ),
        Kind::Compression(size) => (
            compression::reference::forward(&inputs, &documents, size)?,
            compression::reference::backward(&exact_dout, &inputs, &documents, size)?,
        ),
    };
    let visible = match kind {
        Kind::Full => Visible::full(&documents),
        Kind::Window(size) => Visible::window(&documents, size),
        Kind::Compression(size) => Visible::compression(&documents, size),
    };
    let (plain_out, plain_lse) = plain::forward(&inputs, &visible, Roundings::BF16);
    let [plain_dq, plain_dk, plain_dv] =
        plain::backward(&exact_dout, &plain_out, &inputs, &visible, Roundings::BF16);

    let output = forward()?;
    context.compare("out", &output.out, &exact_out, &plain_out)?;
    context.compare("lse", &output.lse, &exact_lse, &plain_lse)?;
    let grads = backward(&output)?;
    let (exact_dq, exact_dk, exact_dv) = exact_grads;
    for (name, grad, exact, plain) in [
        ("dq", &grads.dq, exact_dq, plain_dq),
        ("dk", &grads.dk, exact_dk, plain_dk),
        ("dv", &grads.dv, exact_dv, plain_dv),
    ] {
        let [exact, plain] = [exact, plain].map(|values| twice(&values));
        context.compare(name, grad, &exact, &plain)?;
    }
    compare_again(
        context,
        [&output.out, &output.lse, &grads.dq, &grads.dk, &grads.dv],
        &forward()?,
        backward,
    )
}

/// A second run must give the same bits.
pub(super) fn compare_again(
    context: &mut Context<'_>,
    [out, lse, dq, dk, dv]: [&Tensor; 5],
    again: &AttentionOutput,
    backward: impl FnOnce(&AttentionOutput) -> Result<AttentionGrads>,
) -> Result<()> {
    let grads = backward(again)?;
    for (name, first, second) in [
        ("out", out, &again.out),
        ("lse", lse, &again.lse),
        ("dq", dq, &grads.dq),
        ("dk", dk, &grads.dk),
        ("dv", dv, &grads.dv),
    ] {
        context.compare_bits(name, first, second)?;
    }
    Ok(())
}
