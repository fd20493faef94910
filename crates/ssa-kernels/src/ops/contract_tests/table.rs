//! The contracts of all public ops.

use std::mem::take;
use std::sync::LazyLock;

use proptest::prelude::*;

use crate::kv_cache::{CachedSequences, KvCache, KvShape};
use crate::ops::adamw::{AdamwOptions, Moments, adamw_step, join_master, split_master};
use crate::ops::attention::alignment::{AlignmentOptions, alignment_bwd, alignment_fwd};
use crate::ops::attention::cached::{
    CachedKeys, PageBudget, PageOptions, append_kv, cached_attention_fwd, select_pages,
};
use crate::ops::attention::compression::{compression_attention_bwd, compression_attention_fwd};
use crate::ops::attention::full::{full_attention_bwd, full_attention_fwd};
use crate::ops::attention::gated_pair::{
    GatedPair, GatedPairGrads, PairAlignment, gated_pair_bwd, gated_pair_fwd,
};
use crate::ops::attention::pooling::{mean_pool_bwd, mean_pool_f32_fwd, mean_pool_fwd};
use crate::ops::attention::selection::{
    BlockIndices, SelectionOptions, SelectionRule, SparseBudget, select_blocks, select_by_means,
};
use crate::ops::attention::sparse::{sparse_attention_bwd, sparse_attention_fwd};
use crate::ops::attention::statistics::attention_statistics;
use crate::ops::attention::window::{window_attention_bwd, window_attention_fwd};
use crate::ops::attention::{AttentionCall, AttentionGrads, AttentionMode, AttentionOutput};
use crate::ops::bias::{bias_bwd, bias_fwd};
use crate::ops::cross_entropy::{
    compare_predictions, linear_cross_entropy_fwd, linear_cross_entropy_fwd_bwd,
    linear_cross_entropy_losses,
};
use crate::ops::embedding::{embedding_bwd, embedding_fwd};
use crate::ops::gate::{
    GateBranch, gate_apply_bwd, gate_apply_fwd, gate_bwd, gate_fwd, gate_of_scores_fwd,
};
use crate::ops::grad_norm::{GradScale, clipped_grad_norm, grad_norm, square_sums};
use crate::ops::linear::{
    LinearWeight, linear_bwd_input, linear_bwd_weight, linear_fwd, linear_fwd_f32, linear_rows_fwd,
};
use crate::ops::rms_norm::{add_rms_norm_fwd, rms_norm_bwd, rms_norm_fwd};
use crate::ops::rope::{RopeScaling, RopeTable, rope_bwd, rope_fwd};
use crate::ops::swiglu::{swiglu_bwd, swiglu_bwd_with_out, swiglu_fwd};
use crate::{DType, Device, Documents, Result, Scalars, Tensor};

fn selection() -> SelectionOptions {
    SparseBudget::new(BLOCK_SIZE, 2).unwrap().selection(SelectionRule::Exact)
}

/// The element type of an argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    /// That of activations: `f32` on the CPU, `bf16` on a GPU.
    Act,
    /// `f32` on every device.
    F32,
    /// `f32`, or that of activations.
    Float,
    /// That of the argument before.
    Same,
    /// `i16`; the CPU has no such argument.
    LowHalf,
    /// No tensor: a list or a number that fixes the sizes of axes.
    Given,
}

/// An argument.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) role: Role,
    /// The names of its axes. `..` stands for any number of axes, `?` begins an axis of any size.
    axes: &'static str,
}

const fn entry(name: &'static str, role: Role, axes: &'static str) -> Entry {
    Entry { name, role, axes }
}

const fn act(name: &'static str, axes: &'static str) -> Entry {
    entry(name, Role::Act, axes)
}

const fn f32(name: &'static str, axes: &'static str) -> Entry {
    entry(name, Role::F32, axes)
}

const fn given(name: &'static str, axes: &'static str) -> Entry {
    entry(name, Role::Given, axes)
}

impl Entry {
    pub(super) fn axes(&self) -> impl Iterator<Item = &'static str> {
        self.axes.split(' ')
    }

    /// Whether a size of this axis has to agree with this argument: H divides HQ.
    pub(super) fn depends_on(&self, axis: &str) -> bool {
        self.axes().any(|own| {
            let own = own.trim_start_matches("3*");
            own == axis || matches!((own, axis), ("H", "HQ") | ("HQ", "H"))
        })
    }
}

/// An op with its arguments in the order of its checks.
pub(super) struct Op {
    pub(super) name: &'static str,
    pub(super) entries: Vec<Entry>,
    /// Calls the op with its tensors; the last argument says whether they are on a GPU.
    pub(super) run: fn(&mut [Tensor], &Case, bool) -> Result<()>,
}

impl Op {
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.role != Role::Given)
    }
}

/// Whether an axis may have no elements.
pub(super) fn may_be_empty(axis: &str) -> bool {
    matches!(axis, "B" | "T" | "C" | "..") || axis.starts_with('?')
}

/// The sizes of a call, and its arguments that are no tensors.
#[derive(Debug)]
pub(super) struct Case {
    sizes: Vec<(&'static str, usize)>,
    documents: Documents,
    block_indices: BlockIndices,
    labels: Vec<i32>,
    valid: Vec<bool>,
    rope: RopeTable,
}

const BLOCK_SIZE: usize = 2;
const PAGES: PageOptions =
    PageOptions { budget: PageBudget::Counts(2), rule: SelectionRule::Exact };
pub(super) const ADAMW: AdamwOptions =
    AdamwOptions { lr: 0.1, beta1: 0.9, beta2: 0.9, eps: 1e-8, weight_decay: 0.0 };
const ALIGNMENT: AlignmentOptions = AlignmentOptions {
    kind: crate::ops::attention::alignment::AlignmentKind::SmoothL1,
    direction: crate::ops::attention::alignment::AlignmentDirection::Both,
};

impl Case {
    /// Random sizes for which a size that is too large by one fits no other axis.
    pub(super) fn any() -> impl Strategy<Value = Self> {
        let size = 1..6usize;
        (2..4usize, 1..5usize, 2..4usize, 1..3usize, 1..3usize, size.clone(), size.clone(), size)
            .prop_map(|(batch, tokens, heads, group, half, hidden, vocab, width)| {
                Self::new([batch, tokens, heads, group, 2 * half, hidden, vocab, width])
            })
    }

    fn new(sizes: [usize; 8]) -> Self {
        let [batch, tokens, heads, group, head_dim, hidden, vocab, width] = sizes;
        let documents = Documents::rows(batch, tokens).unwrap();
        let sizes = vec![
            ("B", batch),
            ("T", tokens),
            ("C", documents.blocks(BLOCK_SIZE)),
            ("H", heads),
            ("HQ", group * heads),
            ("3*HQ", 3 * group * heads),
            ("heads", heads),
            ("D", head_dim),
            ("hidden", hidden),
            ("V", vocab),
            ("I", hidden),
            ("O", width),
            ("?HQ", group * heads),
            ("?D", head_dim),
            ("?1", width),
            ("?2", hidden),
            ("?3", vocab),
        ];
        let total = batch * tokens;
        Self {
            sizes,
            block_indices: BlockIndices::all(&documents, heads, BLOCK_SIZE).unwrap(),
            documents,
            labels: vec![0; total],
            valid: vec![true; total],
            rope: RopeTable::new(head_dim, 10_000.0, &RopeScaling::None, tokens).unwrap(),
        }
    }

    fn size(&self, axis: &str) -> usize {
        self.sizes.iter().find(|(name, _)| *name == axis).unwrap().1
    }

    /// The axes of an argument, one for each of its sizes.
    pub(super) fn axes(&self, entry: &Entry) -> Vec<&'static str> {
        entry.axes().flat_map(|axis| vec![axis; if axis == ".." { 2 } else { 1 }]).collect()
    }

    pub(super) fn shape(&self, entry: &Entry) -> Vec<usize> {
        let sizes = |axis| match axis {
            ".." => vec![self.size("B"), self.size("T")],
            axis => vec![self.size(axis)],
        };
        entry.axes().flat_map(sizes).collect()
    }

    fn call<'a>(&'a self, q: &'a Tensor, k: &'a Tensor, v: &'a Tensor) -> AttentionCall<'a> {
        AttentionCall { q, k, v, documents: &self.documents, softmax_scale: 1.0 }
    }

    fn linear_weight(&self) -> LinearWeight {
        let weight = Tensor::zeros([1, self.size("I")]).unwrap();
        LinearWeight::new(&[&weight], DType::F32).unwrap()
    }

    /// A cache of one layer with a sequence of `T` tokens for each row.
    fn cache(&self) -> (KvCache, CachedSequences) {
        let shape = KvShape {
            layers: 1,
            kv_heads: self.size("H"),
            head_dim: self.size("D"),
            page_size: BLOCK_SIZE,
            value_means: false,
        };
        let [batch, tokens] = [self.size("B"), self.size("T")];
        let capacity = batch * tokens.next_multiple_of(BLOCK_SIZE);
        let mut cache = KvCache::new(&Device::Cpu, shape, capacity).unwrap();
        let chunks: Vec<_> = (0..batch).map(|_| (cache.add_sequence(), tokens)).collect();
        let sequences = cache.extend(&chunks).unwrap();
        (cache, sequences)
    }

    fn ids(&self) -> Vec<u32> {
        vec![0; self.labels.len()]
    }

    fn alignment(&self) -> PairAlignment<'_> {
        PairAlignment { options: &ALIGNMENT, gated: true, valid: Some(&self.valid) }
    }
}

/// An op: its name, its tensors, groups of its arguments, and the call.
macro_rules! op {
    (
        $op:ident($($tensor:ident),+), [$($entries:expr),+ $(,)?],
        |$case:tt, $on_gpu:tt| $call:expr
    ) => {
        Op {
            name: stringify!($op),
            entries: [$(&$entries[..]),+].concat(),
            run: |tensors, $case, $on_gpu| {
                let [$($tensor),+] = tensors else {
                    panic!("the table lists {} tensors of {}", tensors.len(), stringify!($op))
                };
                $call.map(drop)
            },
        }
    };
}

fn output(out: &mut Tensor, lse: &mut Tensor) -> AttentionOutput {
    AttentionOutput { out: take(out), lse: take(lse) }
}

fn grads(dq: &mut Tensor, dk: &mut Tensor, dv: &mut Tensor) -> AttentionGrads {
    AttentionGrads { dq: take(dq), dk: take(dk), dv: take(dv) }
}

const LINEAR_MAP: [Entry; 2] = [act("x", ".. I"), act("weight", "O I")];
const GATE_AND_UP: [Entry; 2] = [act("gate", ".."), act("up", "..")];
const GRADS: [Entry; 2] = [f32("grads", "?1 ?2"), f32("grads", "?3")];
/// The output layer.
const HEAD: [Entry; 3] = [act("x", ".. hidden"), act("weight", "V hidden"), given("labels", "..")];
/// Queries, and a key and a value for each token.
const TOKEN_KEYS: [Entry; 4] =
    [act("q", "B T HQ D"), act("k", "B T H D"), act("v", "B T H D"), given("documents", "B T")];
/// Queries, and a key and a value for each block.
const BLOCK_KEYS: [Entry; 5] = [
    act("q", "B T HQ D"),
    given("documents", "B T"),
    given("block_size", "C"),
    act("k", "C H D"),
    act("v", "C H D"),
];
/// What the backward of an attention takes besides the inputs of the forward.
const UPSTREAM: [Entry; 4] = [
    act("dout", "B T HQ D"),
    act("output.out", "B T HQ D"),
    f32("output.lse", "B T HQ"),
    act("grads.dq", "B T HQ D"),
];
const TOKEN_KEY_GRADS: [Entry; 2] = [act("grads.dk", "B T H D"), act("grads.dv", "B T H D")];
const BLOCK_KEY_GRADS: [Entry; 2] = [act("grads.dk", "C H D"), act("grads.dv", "C H D")];
const CACHED: [Entry; 2] = [given("sequences", "B T"), given("cache", "H D")];
const STREAMS: [Entry; 3] =
    [act("full", "B T ?HQ ?D"), act("sparse", "B T ?HQ ?D"), given("valid", "B T")];
const PAIR: [Entry; 4] = [
    act("pair.full", "B T HQ D"),
    act("pair.sparse", "B T HQ D"),
    f32("pair.gate", "B T HQ"),
    given("valid", "B T"),
];

pub(super) static OPS: LazyLock<Vec<Op>> = LazyLock::new(|| {
    let ops = [dense(), heads(), training(), attention(), cached(), streams()];
    ops.into_iter().flatten().collect()
});

fn dense() -> Vec<Op> {
    let row = [act("x", ".. hidden"), act("weight", "hidden")];
    vec![
        op! { add_assign(x, other),
        [[entry("self", Role::Float, ".."), entry("other", Role::Same, "..")]],
        |_, _| x.add_assign(other) },
        op! { linear_fwd(x, weight), [LINEAR_MAP], |_, _| linear_fwd(x, weight) },
        op! { linear_fwd_f32(x, weight), [LINEAR_MAP], |_, _| linear_fwd_f32(x, weight) },
        op! { linear_rows_fwd(x), [[act("x", ".. I"), given("weight", "I")]],
        |case, _| linear_rows_fwd(x, &case.linear_weight()) },
        op! { linear_bwd_input(dout, weight, dx),
        [[act("dout", ".. O"), act("weight", "O I"), act("dx", ".. I")]],
        |_, _| linear_bwd_input(dout, weight, dx) },
        op! { linear_bwd_weight(dout, x, dweight),
        [[act("dout", ".. O"), act("x", ".. I"), f32("dweight", "O I")]],
        |_, _| linear_bwd_weight(dout, x, dweight) },
        op! { bias_fwd(x, bias), [[act("x", ".. O"), act("bias", "O")]],
        |_, _| bias_fwd(take(x), bias) },
        op! { bias_bwd(dout, dbias), [[act("dout", ".. O"), f32("dbias", "O")]],
        |_, _| bias_bwd(dout, dbias) },
        op! { rms_norm_fwd(x, weight), [row], |_, _| rms_norm_fwd(x, weight, 1e-5) },
        op! { add_rms_norm_fwd(x, residual, weight),
        [[row[0], act("residual", ".. hidden"), row[1]]],
        |_, _| add_rms_norm_fwd(take(x), residual, weight, 1e-5) },
        op! { rms_norm_bwd(dout, x, weight, rstd, dx, dweight),
        [
            [act("dout", ".. hidden")], row,
            [f32("rstd", ".."), act("dx", ".. hidden"), f32("dweight", "hidden")],
        ],
        |_, _| rms_norm_bwd(dout, x, weight, rstd, dx, dweight) },
        op! { swiglu_fwd(gate, up), [GATE_AND_UP], |_, _| swiglu_fwd(gate, up) },
        op! { swiglu_bwd(dout, gate, up, dgate, dup),
        [[act("dout", "..")], GATE_AND_UP, [act("dgate", ".."), act("dup", "..")]],
        |_, _| swiglu_bwd(dout, gate, up, dgate, dup) },
        op! { swiglu_bwd_with_out(dout, gate, up), [[act("dout", "..")], GATE_AND_UP],
        |_, _| swiglu_bwd_with_out(take(dout), gate, up) },
        op! { embedding_fwd(weight), [[act("weight", "V hidden")]],
        |case, _| embedding_fwd(&case.ids(), weight, [case.size("B"), case.size("T")]) },
        op! { embedding_bwd(dout, dweight),
        [[act("dout", ".. hidden"), given("ids", ".."), f32("dweight", "V hidden")]],
        |case, _| embedding_bwd(dout, &case.ids(), dweight) },
    ]
}

fn heads() -> Vec<Op> {
    let projection = [act("x", "B T hidden"), act("g_proj", "3*HQ hidden")];
    let (out, gate) = (act("out", "B T HQ D"), f32("gate", "B T HQ"));
    let rotated = |name| [given("table", "D"), act(name, "B T heads D"), given("sequences", "B T")];
    vec![
        op! { gate_fwd(x, g_proj), [projection],
        |_, _| gate_fwd(x, g_proj, GateBranch::Window) },
        op! { gate_bwd(dgate, gate, x, g_proj, dx, dg_proj),
        [
            [f32("dgate", "B T HQ"), gate], projection,
            [act("dx", "B T hidden"), f32("dg_proj", "3*HQ hidden")],
        ],
        |_, _| gate_bwd(dgate, gate, x, g_proj, GateBranch::Window, dx, dg_proj) },
        op! { gate_of_scores_fwd(scores), [[act("scores", "B T HQ")]],
        |_, _| gate_of_scores_fwd(scores) },
        op! { gate_apply_fwd(out, gate), [[out, gate]], |_, _| gate_apply_fwd(out, gate) },
        op! { gate_apply_bwd(dgated, out, gate, dout, dgate),
        [
            [act("dgated", "B T HQ D"), out, gate],
            [act("dout", "B T HQ D"), f32("dgate", "B T HQ")],
        ],
        |_, _| gate_apply_bwd(dgated, out, gate, dout, dgate) },
        op! { rope_fwd(x), [rotated("x")], |case, _| rope_fwd(x, &case.documents, &case.rope) },
        op! { rope_bwd(dx), [rotated("dx")], |case, _| rope_bwd(dx, &case.documents, &case.rope) },
    ]
}

fn training() -> Vec<Op> {
    let low_half = entry("residue", Role::LowHalf, "..");
    vec![
        op! { grad_norm(a, b), [GRADS], |_, _| grad_norm([&*a, &*b]) },
        op! { clipped_grad_norm(a, b), [GRADS],
        |_, _| clipped_grad_norm([&*a, &*b], 1.0, &Scalars::new(&Device::Cpu)) },
        op! { square_sums(a, b), [GRADS], |_, _| square_sums([&*a, &*b]) },
        op! { adamw_step(param, residue, grad, m, v),
        [[act("param", ".."), low_half, f32("grad", ".."), f32("m", ".."), f32("v", "..")]],
        |_, on_gpu| {
            let scale = GradScale::new(1.0);
            let residue = on_gpu.then_some(residue);
            adamw_step(param, residue, grad, Moments { m, v }, &ADAMW, 1, &scale)
        } },
        op! { split_master(master), [[f32("master", "..")]], |_, _| split_master(master) },
        op! { join_master(param, residue), [[act("param", ".."), low_half]],
        |_, on_gpu| join_master(param, on_gpu.then_some(&*residue)) },
        op! { linear_cross_entropy_fwd(x, weight), [HEAD],
        |case, _| linear_cross_entropy_fwd(x, weight, &case.labels) },
        op! { linear_cross_entropy_losses(x, weight), [HEAD],
        |case, _| linear_cross_entropy_losses(x, weight, &case.labels) },
        op! { linear_cross_entropy_fwd_bwd(x, weight, dx, dweight),
        [HEAD, [act("dx", ".. hidden"), f32("dweight", "V hidden")]],
        |case, _| {
            linear_cross_entropy_fwd_bwd(x, weight, &case.labels, 1.0, 0.0, dx, dweight)
        } },
        op! { compare_predictions(weight, p, q),
        [[HEAD[1], act("xs", ".. hidden"), act("xs", ".. hidden"), HEAD[2]]],
        |case, _| compare_predictions(&[p, q], weight, &case.labels) },
    ]
}

fn attention() -> Vec<Op> {
    let pooled = [act("x", "B T H D"), given("documents", "B T")];
    let [q, k, _, documents] = TOKEN_KEYS;
    vec![
        op! { mean_pool_fwd(x), [pooled],
        |case, _| mean_pool_fwd(x, &case.documents, BLOCK_SIZE) },
        op! { mean_pool_f32_fwd(x), [pooled],
        |case, _| mean_pool_f32_fwd(x, &case.documents, BLOCK_SIZE) },
        op! { mean_pool_bwd(dpooled, dx),
        [[given("block_size", "C"), act("dpooled", "C H D"), act("dx", "B T H D"), documents]],
        |case, _| mean_pool_bwd(dpooled, &case.documents, BLOCK_SIZE, dx) },
        op! { select_blocks(q, k_pooled),
        [[q, documents, given("block_size", "C"), entry("k_pooled", Role::Float, "C H D")]],
        |case, _| select_blocks(q, k_pooled, &case.documents, &selection(), 1.0) },
        op! { select_by_means(q, k), [[q, k, documents]],
        |case, _| select_by_means(q, k, &case.documents, &selection(), 1.0) },
        op! { full_attention_fwd(q, k, v), [TOKEN_KEYS],
        |case, _| full_attention_fwd(&case.call(q, k, v)) },
        op! { full_attention_bwd(q, k, v, dout, out, lse, dq, dk, dv),
        [TOKEN_KEYS, UPSTREAM, TOKEN_KEY_GRADS],
        |case, _| full_attention_bwd(
            dout, &case.call(q, k, v), &output(out, lse), &mut grads(dq, dk, dv)
        ) },
        op! { window_attention_fwd(q, k, v), [TOKEN_KEYS],
        |case, _| window_attention_fwd(&case.call(q, k, v), 2) },
        op! { window_attention_bwd(q, k, v, dout, out, lse, dq, dk, dv),
        [TOKEN_KEYS, UPSTREAM, TOKEN_KEY_GRADS],
        |case, _| window_attention_bwd(
            dout, &case.call(q, k, v), 2, &output(out, lse), &mut grads(dq, dk, dv)
        ) },
        op! { compression_attention_fwd(q, k, v), [BLOCK_KEYS],
        |case, _| compression_attention_fwd(&case.call(q, k, v), BLOCK_SIZE) },
        op! { compression_attention_bwd(q, k, v, dout, out, lse, dq, dk, dv),
        [BLOCK_KEYS, UPSTREAM, BLOCK_KEY_GRADS],
        |case, _| compression_attention_bwd(
            dout, &case.call(q, k, v), BLOCK_SIZE, &output(out, lse), &mut grads(dq, dk, dv)
        ) },
        op! { sparse_attention_fwd(q, k, v), [TOKEN_KEYS],
        |case, _| sparse_attention_fwd(&case.call(q, k, v), &case.block_indices) },
        op! { sparse_attention_bwd(q, k, v, dout, out, lse, dq, dk, dv),
        [TOKEN_KEYS, UPSTREAM, TOKEN_KEY_GRADS],
        |case, _| {
            let (call, output) = (case.call(q, k, v), output(out, lse));
            let grads = &mut grads(dq, dk, dv);
            sparse_attention_bwd(dout, &call, &case.block_indices, &output, grads)
        } },
        op! { attention_statistics(q, k, v), [TOKEN_KEYS],
        |case, _| attention_statistics(&case.call(q, k, v), &case.block_indices) },
    ]
}

fn cached() -> Vec<Op> {
    let [q, k, v, _] = TOKEN_KEYS;
    vec![
        op! { append_kv(k, v), [[k, v], CACHED],
        |case, _| {
            let (mut cache, sequences) = case.cache();
            append_kv(&mut cache, 0, k, v, &sequences)
        } },
        op! { select_pages(q), [[q], CACHED],
        |case, _| {
            let (cache, sequences) = case.cache();
            select_pages(q, &cache, 0, &sequences, &PAGES, 1.0)
        } },
        op! { cached_attention_fwd(q), [[q], CACHED],
        |case, _| {
            let (cache, sequences) = case.cache();
            cached_attention_fwd(q, &cache, 0, &sequences, CachedKeys::All, 1.0)
        } },
    ]
}

fn streams() -> Vec<Op> {
    vec![
        op! { alignment_fwd(full, sparse), [STREAMS],
        |case, _| alignment_fwd(full, sparse, Some(&case.valid), &ALIGNMENT) },
        op! { alignment_bwd(full, sparse, dfull, dsparse),
        [STREAMS, [act("dfull", "B T ?HQ ?D"), act("dsparse", "B T ?HQ ?D")]],
        |case, _| {
            alignment_bwd(full, sparse, Some(&case.valid), &ALIGNMENT, 1.0, dfull, dsparse)
        } },
        op! { gated_pair_fwd(full, sparse, gate), [PAIR],
        |case, _| {
            let pair = GatedPair { full, sparse, gate, chosen: AttentionMode::Full };
            gated_pair_fwd(&pair, &case.alignment())
        } },
        op! { gated_pair_bwd(full, sparse, gate, dmixed, dfull, dsparse, dgate),
        [
            PAIR,
            [act("dmixed", "B T HQ D"), act("grads.dfull", "B T HQ D")],
            [act("grads.dsparse", "B T HQ D"), f32("grads.dgate", "B T HQ")],
        ],
        |case, _| {
            let pair = GatedPair { full, sparse, gate, chosen: AttentionMode::Full };
            let grads = GatedPairGrads { dfull, dsparse, dgate };
            gated_pair_bwd(dmixed, &pair, &case.alignment(), 1.0, grads)
        } },
    ]
}
