//! Attention, forward and forward with backward, over sequence lengths.
//!
//! `cargo bench -p ssa-kernels --bench attention -- --quick` prints a throughput in Gelem/s, where
//! an element is one floating-point operation that full attention needs on the causal triangle: 4 D
//! per query head, query and key it sees (forward) and 10 D more (backward). The `gemm` line is a
//! square matrix product on the same scale: the ceiling.
//!
//! `sparse` is everything a sparse layer does: block means, selection and attention at 16x16, with
//! selections that are as random as the inputs, the worst case for caches. Its throughput counts
//! full attention's operations, so it reads as a speed-up. `benchmarks/attention_by_length.py`
//! turns the results into a table and a plot.

#![allow(clippy::unwrap_used)] // A benchmark whose arguments are wrong should stop.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use ssa_kernels::ops::attention::compression::compression_attention_fwd;
use ssa_kernels::ops::attention::full::{full_attention_bwd, full_attention_fwd};
use ssa_kernels::ops::attention::pooling::mean_pool_fwd;
use ssa_kernels::ops::attention::selection::{
    BlockIndices, SelectionOptions, SelectionRule, SparseBudget, select_blocks,
};
use ssa_kernels::ops::attention::sparse::{sparse_attention_bwd, sparse_attention_fwd};
use ssa_kernels::ops::attention::window::window_attention_fwd;
use ssa_kernels::ops::attention::{AttentionCall, AttentionGrads, AttentionOutput};
use ssa_kernels::ops::linear::linear_fwd;
use ssa_kernels::{Documents, Tensor};
use ssa_testkit::Random;

/// Sizes of one measurement.
#[derive(Clone, Copy)]
struct Size {
    batch: usize,
    tokens: usize,
    q_heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// The paper's 300 M model at growing lengths, and a small model's batch.
const SIZES: [Size; 7] = [
    long(512),
    long(1024),
    long(2048),
    long(4096),
    long(8192),
    long(16384),
    Size { batch: 8, tokens: 1024, q_heads: 8, kv_heads: 2, head_dim: 32 },
];

const fn long(tokens: usize) -> Size {
    Size { batch: 1, tokens, q_heads: 16, kv_heads: 1, head_dim: 64 }
}

/// The budget of the paper: blocks of 16 tokens, 16 of them.
const SELECTION: SelectionOptions =
    SelectionOptions { budget: SparseBudget::PAPER, rule: SelectionRule::Exact };
const WINDOW_SIZE: usize = 128;

/// Inputs of one measurement.
struct BenchInputs {
    size: Size,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dout: Tensor,
    documents: Documents,
    softmax_scale: f32,
}

impl BenchInputs {
    fn new(size: Size) -> Self {
        let mut random = Random::new(1);
        let [batch, tokens, head_dim] = [size.batch, size.tokens, size.head_dim];
        let mut tensor = |heads: usize| {
            let values = random.normal(batch * tokens * heads * head_dim);
            Tensor::from_vec(values, [batch, tokens, heads, head_dim]).unwrap()
        };
        Self {
            size,
            q: tensor(size.q_heads),
            k: tensor(size.kv_heads),
            v: tensor(size.kv_heads),
            dout: tensor(size.q_heads),
            documents: Documents::rows(batch, tokens).unwrap(),
            softmax_scale: (head_dim as f32).powf(-0.5),
        }
    }

    /// Floating-point operations of `products` products over the causal triangle.
    fn operations(&self, products: usize) -> u64 {
        let Size { batch, tokens, q_heads, head_dim, .. } = self.size;
        (2 * products * batch * q_heads * head_dim * tokens * (tokens + 1) / 2) as u64
    }

    fn label(&self, method: &str) -> BenchmarkId {
        let Size { batch, tokens, q_heads, kv_heads, head_dim } = self.size;
        BenchmarkId::new(method, format!("B{batch} T{tokens} HQ{q_heads} H{kv_heads} D{head_dim}"))
    }

    fn call(&self) -> AttentionCall<'_> {
        let Self { q, k, v, documents, softmax_scale, .. } = self;
        AttentionCall { q, k, v, documents, softmax_scale: *softmax_scale }
    }

    fn full_fwd(&self) -> AttentionOutput {
        full_attention_fwd(&self.call()).unwrap()
    }

    fn full_fwd_bwd(&self) -> AttentionGrads {
        let Self { q, k, v, dout, .. } = self;
        let output = self.full_fwd();
        let mut grads = AttentionGrads::zeros_like(q, k, v).unwrap();
        full_attention_bwd(dout, &self.call(), &output, &mut grads).unwrap();
        grads
    }

    fn select(&self) -> BlockIndices {
        let Self { q, k, documents, softmax_scale, .. } = self;
        let pooled = mean_pool_fwd(k, documents, SELECTION.budget.block_size()).unwrap();
        select_blocks(q, &pooled, documents, &SELECTION, *softmax_scale).unwrap()
    }

    fn sparse_fwd(&self) -> (BlockIndices, AttentionOutput) {
        let block_indices = self.select();
        let output = sparse_attention_fwd(&self.call(), &block_indices).unwrap();
        (block_indices, output)
    }

    fn sparse_fwd_bwd(&self) -> AttentionGrads {
        let Self { q, k, v, dout, .. } = self;
        let (indices, output) = self.sparse_fwd();
        let mut grads = AttentionGrads::zeros_like(q, k, v).unwrap();
        sparse_attention_bwd(dout, &self.call(), &indices, &output, &mut grads).unwrap();
        grads
    }

    fn compression_fwd(&self) -> AttentionOutput {
        let pool = |x| mean_pool_fwd(x, &self.documents, SELECTION.budget.block_size()).unwrap();
        let (k, v) = (pool(&self.k), pool(&self.v));
        let call = AttentionCall { k: &k, v: &v, ..self.call() };
        compression_attention_fwd(&call, SELECTION.budget.block_size()).unwrap()
    }

    fn window_fwd(&self) -> AttentionOutput {
        window_attention_fwd(&self.call(), WINDOW_SIZE).unwrap()
    }
}

/// One group: each method over all sizes.
fn over_sizes(
    c: &mut Criterion,
    name: &str,
    products: usize,
    mut methods: impl FnMut(&mut BenchmarkGroup<'_, WallTime>, &BenchInputs),
) {
    let mut group = c.benchmark_group(name);
    group.sample_size(10);
    for size in SIZES {
        let inputs = BenchInputs::new(size);
        group.throughput(Throughput::Elements(inputs.operations(products)));
        methods(&mut group, &inputs);
    }
    group.finish();
}

fn forward(c: &mut Criterion) {
    over_sizes(c, "attention_fwd", 2, |group, inputs| {
        group.bench_function(inputs.label("full"), |b| b.iter(|| black_box(inputs.full_fwd())));
        group.bench_function(inputs.label("sparse"), |b| b.iter(|| black_box(inputs.sparse_fwd())));
        group.bench_function(inputs.label("selection"), |b| b.iter(|| black_box(inputs.select())));
        group.bench_function(inputs.label("compression"), |b| {
            b.iter(|| black_box(inputs.compression_fwd()))
        });
        group.bench_function(inputs.label("window"), |b| b.iter(|| black_box(inputs.window_fwd())));
    });
}

fn forward_and_backward(c: &mut Criterion) {
    over_sizes(c, "attention_fwd_bwd", 7, |group, inputs| {
        group.bench_function(inputs.label("full"), |b| b.iter(|| black_box(inputs.full_fwd_bwd())));
        group.bench_function(inputs.label("sparse"), |b| {
            b.iter(|| black_box(inputs.sparse_fwd_bwd()))
        });
    });
}

fn gemm(c: &mut Criterion) {
    const SIZE: usize = 2048;
    let mut random = Random::new(1);
    let mut tensor = || Tensor::from_vec(random.normal(SIZE * SIZE), [SIZE, SIZE]).unwrap();
    let [x, weight] = [tensor(), tensor()];
    let mut group = c.benchmark_group("gemm");
    group.throughput(Throughput::Elements((2 * SIZE * SIZE * SIZE) as u64)).sample_size(10);
    group.bench_function(format!("{SIZE}^3"), |b| {
        b.iter(|| black_box(linear_fwd(&x, &weight).unwrap()))
    });
    group.finish();
}

criterion_group!(benches, gemm, forward, forward_and_backward);
criterion_main!(benches);
