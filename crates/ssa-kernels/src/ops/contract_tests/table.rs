//! The contracts of all public ops.

use std::mem::take;

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
use crate::ops::grad_norm::{GradScale, clipped_grad_norm, grad_norm};
use crate::ops::linear::{
    LinearWeight, linear_bwd_input, linear_bwd_weight, linear_fwd, linear_fwd_f32, linear_rows_fwd,
};
use crate::ops::rms_norm::{add_rms_norm_fwd, rms_norm_bwd, rms_norm_fwd};
use crate::ops::rope::{RopeScaling, RopeTable, rope_bwd, rope_fwd};
use crate::ops::sampling::{Draw, draw_tokens};
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
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) role: Role,
    /// The names of its axes. `..` stands for any number of axes, `?` begins an axis of any size.
    axes: &'static str,
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
    pub(super) entries: &'static [Entry],
    /// Calls the op with its tensors; the last argument says whether they are on a GPU.
    pub(super) run: fn(&mut [Tensor], &Case, bool) -> Result<()>,
}

impl Op {
    pub(super) fn tensors(&self) -> impl Iterator<Item = &'static Entry> {
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
const ADAMW: AdamwOptions =
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

/// An op: its name, its arguments (variable, name, role and axes), and the call.
macro_rules! op {
    (
        $op:ident, |$case:tt, $on_gpu:tt| $call:expr,
        $($variable:tt = $name:literal $role:ident $axes:literal;)+
    ) => {
        Op {
            name: stringify!($op),
            entries: &[$(Entry { name: $name, role: Role::$role, axes: $axes }),+],
            run: |tensors, $case, $on_gpu| {
                let mut tensors = tensors.iter_mut();
                $(op!(@take $variable $role tensors);)+
                $call.map(drop)
            },
        }
    };
    (@take $variable:tt Given $tensors:ident) => {};
    (@take $variable:tt $role:ident $tensors:ident) => {
        let $variable = $tensors.next().unwrap();
    };
}

fn output(out: &mut Tensor, lse: &mut Tensor) -> AttentionOutput {
    AttentionOutput { out: take(out), lse: take(lse) }
}

fn grads(dq: &mut Tensor, dk: &mut Tensor, dv: &mut Tensor) -> AttentionGrads {
    AttentionGrads { dq: take(dq), dk: take(dk), dv: take(dv) }
}

pub(super) static OPS: &[Op] = &[
    op! { add_assign, |_, _| x.add_assign(other),
        x = "self" Float "..";
        other = "other" Same "..";
    },
    op! { linear_fwd, |_, _| linear_fwd(x, weight),
        x = "x" Act ".. I";
        weight = "weight" Act "O I";
    },
    op! { linear_fwd_f32, |_, _| linear_fwd_f32(x, weight),
        x = "x" Act ".. I";
        weight = "weight" Act "O I";
    },
    op! { draw_tokens, |_, _| draw_tokens(logits, &vec![(Draw::GREEDY, &[][..]); logits.rows()]),
        logits = "logits" F32 ".. V";
    },
    op! { linear_rows_fwd, |case, _| linear_rows_fwd(x, &case.linear_weight()),
        x = "x" Act ".. I";
        _ = "weight" Given "I";
    },
    op! { linear_bwd_input, |_, _| linear_bwd_input(dout, weight, dx),
        dout = "dout" Act ".. O";
        weight = "weight" Act "O I";
        dx = "dx" Act ".. I";
    },
    op! { linear_bwd_weight, |_, _| linear_bwd_weight(dout, x, dweight),
        dout = "dout" Act ".. O";
        x = "x" Act ".. I";
        dweight = "dweight" F32 "O I";
    },
    op! { bias_fwd, |_, _| bias_fwd(take(x), bias),
        x = "x" Act ".. O";
        bias = "bias" Act "O";
    },
    op! { bias_bwd, |_, _| bias_bwd(dout, dbias),
        dout = "dout" Act ".. O";
        dbias = "dbias" F32 "O";
    },
    op! { rms_norm_fwd, |_, _| rms_norm_fwd(x, weight, 1e-5),
        x = "x" Act ".. hidden";
        weight = "weight" Act "hidden";
    },
    op! { add_rms_norm_fwd, |_, _| add_rms_norm_fwd(take(x), residual, weight, 1e-5),
        x = "x" Act ".. hidden";
        residual = "residual" Act ".. hidden";
        weight = "weight" Act "hidden";
    },
    op! { rms_norm_bwd, |_, _| rms_norm_bwd(dout, x, weight, rstd, dx, dweight),
        dout = "dout" Act ".. hidden";
        x = "x" Act ".. hidden";
        weight = "weight" Act "hidden";
        rstd = "rstd" F32 "..";
        dx = "dx" Act ".. hidden";
        dweight = "dweight" F32 "hidden";
    },
    op! { swiglu_fwd, |_, _| swiglu_fwd(gate, up),
        gate = "gate" Act "..";
        up = "up" Act "..";
    },
    op! { swiglu_bwd, |_, _| swiglu_bwd(dout, gate, up, dgate, dup),
        dout = "dout" Act "..";
        gate = "gate" Act "..";
        up = "up" Act "..";
        dgate = "dgate" Act "..";
        dup = "dup" Act "..";
    },
    op! { swiglu_bwd_with_out, |_, _| swiglu_bwd_with_out(take(dout), gate, up),
        dout = "dout" Act "..";
        gate = "gate" Act "..";
        up = "up" Act "..";
    },
    op! { embedding_fwd, |case, _| embedding_fwd(
            &case.ids(), weight, [case.size("B"), case.size("T")]
        ),
        weight = "weight" Act "V hidden";
    },
    op! { embedding_bwd, |case, _| embedding_bwd(dout, &case.ids(), dweight),
        dout = "dout" Act ".. hidden";
        _ = "ids" Given "..";
        dweight = "dweight" F32 "V hidden";
    },
    op! { gate_fwd, |_, _| gate_fwd(x, g_proj, GateBranch::Window),
        x = "x" Act "B T hidden";
        g_proj = "g_proj" Act "3*HQ hidden";
    },
    op! { gate_bwd, |_, _| gate_bwd(dgate, gate, x, g_proj, GateBranch::Window, dx, dg_proj),
        dgate = "dgate" F32 "B T HQ";
        gate = "gate" F32 "B T HQ";
        x = "x" Act "B T hidden";
        g_proj = "g_proj" Act "3*HQ hidden";
        dx = "dx" Act "B T hidden";
        dg_proj = "dg_proj" F32 "3*HQ hidden";
    },
    op! { gate_of_scores_fwd, |_, _| gate_of_scores_fwd(scores),
        scores = "scores" Act "B T HQ";
    },
    op! { gate_apply_fwd, |_, _| gate_apply_fwd(out, gate),
        out = "out" Act "B T HQ D";
        gate = "gate" F32 "B T HQ";
    },
    op! { gate_apply_bwd, |_, _| gate_apply_bwd(dgated, out, gate, dout, dgate),
        dgated = "dgated" Act "B T HQ D";
        out = "out" Act "B T HQ D";
        gate = "gate" F32 "B T HQ";
        dout = "dout" Act "B T HQ D";
        dgate = "dgate" F32 "B T HQ";
    },
    op! { grad_norm, |_, _| grad_norm([&*a, &*b]),
        a = "grads" F32 "?1 ?2";
        b = "grads" F32 "?3";
    },
    op! { clipped_grad_norm, |_, _| clipped_grad_norm([&*a, &*b], 1.0, &Scalars::new(&Device::Cpu)),
        a = "grads" F32 "?1 ?2";
        b = "grads" F32 "?3";
    },
    op! { adamw_step, |_, on_gpu| adamw_step(
            param, on_gpu.then_some(residue), grad, Moments { m, v }, &ADAMW, 1,
            &GradScale::new(1.0),
        ),
        param = "param" Act "..";
        residue = "residue" LowHalf "..";
        grad = "grad" F32 "..";
        m = "m" F32 "..";
        v = "v" F32 "..";
    },
    op! { split_master, |_, _| split_master(master),
        master = "master" F32 "..";
    },
    op! { join_master, |_, on_gpu| join_master(param, on_gpu.then_some(&*residue)),
        param = "param" Act "..";
        residue = "residue" LowHalf "..";
    },
    op! { linear_cross_entropy_fwd, |case, _| linear_cross_entropy_fwd(x, weight, &case.labels),
        x = "x" Act ".. hidden";
        weight = "weight" Act "V hidden";
        _ = "labels" Given "..";
    },
    op! { linear_cross_entropy_losses, |case, _| linear_cross_entropy_losses(
            x, weight, &case.labels
        ),
        x = "x" Act ".. hidden";
        weight = "weight" Act "V hidden";
        _ = "labels" Given "..";
    },
    op! { linear_cross_entropy_fwd_bwd, |case, _| linear_cross_entropy_fwd_bwd(
            x, weight, &case.labels, 1.0, 0.0, dx, dweight
        ),
        x = "x" Act ".. hidden";
        weight = "weight" Act "V hidden";
        _ = "labels" Given "..";
        dx = "dx" Act ".. hidden";
        dweight = "dweight" F32 "V hidden";
    },
    op! { compare_predictions, |case, _| compare_predictions(&[p, q], weight, &case.labels),
        weight = "weight" Act "V hidden";
        p = "xs" Act ".. hidden";
        q = "xs" Act ".. hidden";
        _ = "labels" Given "..";
    },
    op! { rope_fwd, |case, _| rope_fwd(x, &case.documents, &case.rope),
        _ = "table" Given "D";
        x = "x" Act "B T heads D";
        _ = "sequences" Given "B T";
    },
    op! { rope_bwd, |case, _| rope_bwd(dx, &case.documents, &case.rope),
        _ = "table" Given "D";
        dx = "dx" Act "B T heads D";
        _ = "sequences" Given "B T";
    },
    op! { mean_pool_fwd, |case, _| mean_pool_fwd(x, &case.documents, BLOCK_SIZE),
        x = "x" Act "B T H D";
        _ = "documents" Given "B T";
    },
    op! { mean_pool_f32_fwd, |case, _| mean_pool_f32_fwd(x, &case.documents, BLOCK_SIZE),
        x = "x" Act "B T H D";
        _ = "documents" Given "B T";
    },
    op! { mean_pool_bwd, |case, _| mean_pool_bwd(dpooled, &case.documents, BLOCK_SIZE, dx),
        _ = "block_size" Given "C";
        dpooled = "dpooled" Act "C H D";
        dx = "dx" Act "B T H D";
        _ = "documents" Given "B T";
    },
    op! { select_blocks, |case, _| select_blocks(q, k_pooled, &case.documents, &selection(), 1.0),
        q = "q" Act "B T HQ D";
        _ = "documents" Given "B T";
        _ = "block_size" Given "C";
        k_pooled = "k_pooled" Float "C H D";
    },
    op! { select_by_means, |case, _| select_by_means(q, k, &case.documents, &selection(), 1.0),
        q = "q" Act "B T HQ D";
        k = "k" Act "B T H D";
        _ = "documents" Given "B T";
    },
    op! { full_attention_fwd, |case, _| full_attention_fwd(&case.call(q, k, v)),
        q = "q" Act "B T HQ D";
        k = "k" Act "B T H D";
        v = "v" Act "B T H D";
        _ = "documents" Given "B T";
    },
    op! { full_attention_bwd, |case, _| full_attention_bwd(
            dout, &case.call(q, k, v), &output(out, lse), &mut grads(dq, dk, dv)
        ),
        q = "q" Act "B T HQ D";
        k = "k" Act "B T H D";
        v = "v" Act "B T H D";
        _ = "documents" Given "B T";
        dout = "dout" Act "B T HQ D";
        out = "output.out" Act "B T HQ D";
        lse = "output.lse" F32 "B T HQ";
        dq = "grads.dq" Act "B T HQ D";
        dk = "grads.dk" Act "B T H D";
        dv = "grads.dv" Act "B T H D";
    },
    op! { window_attention_fwd, |case, _| window_attention_fwd(&case.call(q, k, v), 2),
        q = "q" Act "B T HQ D";
        k = "k" Act "B T H D";
        v = "v" Act "B T H D";
        _ = "documents" Given "B T";
    },
    op! { window_attention_bwd, |case, _| window_attention_bwd(
            dout, &case.call(q, k, v), 2, &output(out, lse), &mut grads(dq, dk, dv)
        ),
        q = "q" Act "B T HQ D";
        k = "k" Act "B T H D";
        v = "v" Act "B T H D";
        _ = "documents" Given "B T";
        dout = "dout" Act "B T HQ D";
        out = "output.out" Act "B T HQ D";
        lse = "output.lse" F32 "B T HQ";
        dq = "grads.dq" Act "B T HQ D";
        dk = "grads.dk" Act "B T H D";
        dv = "grads.dv" Act "B T H D";
    },
    op! { compression_attention_fwd, |case, _| compression_attention_fwd(
            &case.call(q, k, v), BLOCK_SIZE
        ),
        q = "q" Act "B T HQ D";
        _ = "documents" Given "B T";
        _ = "block_size" Given "C";
        k = "k" Act "C H D";
        v = "v" Act "C H D";
    },
    op! { compression_attention_bwd, |case, _| compression_attention_bwd(
            dout, &case.call(q, k, v), BLOCK_SIZE, &output(out, lse), &mut grads(dq, dk, dv)
        ),
        q = "q" Act "B T HQ D";
        _ = "documents" Given "B T";
        _ = "block_size" Given "C";
        k = "k" Act "C H D";
        v = "v" Act "C H D";
        dout = "dout" Act "B T HQ D";
        out = "output.out" Act "B T HQ D";
        lse = "output.lse" F32 "B T HQ";
        dq = "grads.dq" Act "B T HQ D";
        dk = "grads.dk" Act "C H D";
        dv = "grads.dv" Act "C H D";
    },
    op! { sparse_attention_fwd, |case, _| sparse_attention_fwd(
            &case.call(q, k, v), &case.block_indices
        ),
        q = "q" Act "B T HQ D";
        k = "k" Act "B T H D";
        v = "v" Act "B T H D";
        _ = "documents" Given "B T";
    },
    op! { sparse_attention_bwd, |case, _| sparse_attention_bwd(
            dout, &case.call(q, k, v), &case.block_indices, &output(out, lse),
            &mut grads(dq, dk, dv),
        ),
        q = "q" Act "B T HQ D";
        k = "k" Act "B T H D";
        v = "v" Act "B T H D";
        _ = "documents" Given "B T";
        dout = "dout" Act "B T HQ D";
        out = "output.out" Act "B T HQ D";
        lse = "output.lse" F32 "B T HQ";
        dq = "grads.dq" Act "B T HQ D";
        dk = "grads.dk" Act "B T H D";
        dv = "grads.dv" Act "B T H D";
    },
    op! { attention_statistics, |case, _| attention_statistics(
            &case.call(q, k, v), &case.block_indices
        ),
        q = "q" Act "B T HQ D";
        k = "k" Act "B T H D";
        v = "v" Act "B T H D";
        _ = "documents" Given "B T";
    },
    op! { append_kv, |case, _| {
            let (mut cache, sequences) = case.cache();
            append_kv(&mut cache, 0, k, v, &sequences)
        },
        k = "k" Act "B T H D";
        v = "v" Act "B T H D";
        _ = "sequences" Given "B T";
        _ = "cache" Given "H D";
    },
    op! { select_pages, |case, _| {
            let (cache, sequences) = case.cache();
            select_pages(q, &cache, 0, &sequences, &PAGES, 1.0)
        },
        q = "q" Act "B T HQ D";
        _ = "sequences" Given "B T";
        _ = "cache" Given "H D";
    },
    op! { cached_attention_fwd, |case, _| {
            let (cache, sequences) = case.cache();
            cached_attention_fwd(q, &cache, 0, &sequences, CachedKeys::All, 1.0)
        },
        q = "q" Act "B T HQ D";
        _ = "sequences" Given "B T";
        _ = "cache" Given "H D";
    },
    op! { alignment_fwd, |case, _| alignment_fwd(full, sparse, Some(&case.valid), &ALIGNMENT),
        full = "full" Act "B T ?HQ ?D";
        sparse = "sparse" Act "B T ?HQ ?D";
        _ = "valid" Given "B T";
    },
    op! { alignment_bwd, |case, _| alignment_bwd(
            full, sparse, Some(&case.valid), &ALIGNMENT, 1.0, dfull, dsparse
        ),
        full = "full" Act "B T ?HQ ?D";
        sparse = "sparse" Act "B T ?HQ ?D";
        _ = "valid" Given "B T";
        dfull = "dfull" Act "B T ?HQ ?D";
        dsparse = "dsparse" Act "B T ?HQ ?D";
    },
    op! { gated_pair_fwd, |case, _| gated_pair_fwd(
            &GatedPair { full, sparse, gate, chosen: AttentionMode::Full }, &case.alignment()
        ),
        full = "pair.full" Act "B T HQ D";
        sparse = "pair.sparse" Act "B T HQ D";
        gate = "pair.gate" F32 "B T HQ";
        _ = "valid" Given "B T";
    },
    op! { gated_pair_bwd, |case, _| gated_pair_bwd(
            dmixed, &GatedPair { full, sparse, gate, chosen: AttentionMode::Full },
            &case.alignment(),
            1.0, GatedPairGrads { dfull, dsparse, dgate },
        ),
        full = "pair.full" Act "B T HQ D";
        sparse = "pair.sparse" Act "B T HQ D";
        gate = "pair.gate" F32 "B T HQ";
        _ = "valid" Given "B T";
        dmixed = "dmixed" Act "B T HQ D";
        dfull = "grads.dfull" Act "B T HQ D";
        dsparse = "grads.dsparse" Act "B T HQ D";
        dgate = "grads.dgate" F32 "B T HQ";
    },
];
