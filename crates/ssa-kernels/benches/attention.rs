//! Attention, forward and forward with backward, over sequence lengths.
//!
//! `cargo bench -p ssa-kernels --bench attention -- --quick` prints a throughput in Gelem/s, where an element is one
//! floating-point operation that the causal triangle needs: 4 D per query head, query and key it sees (forward) and
//! 10 D more (backward). The `gemm` line is a square matrix product on the same scale: the ceiling.

#![allow(clippy::unwrap_used)] // A benchmark whose arguments are wrong should stop.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ssa_kernels::ops::attention::full::{full_attention_bwd, full_attention_fwd};
use ssa_kernels::ops::attention::{AttentionGrads, AttentionOutput};
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

/// Inputs of one measurement.
struct Inputs {
    size: Size,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dout: Tensor,
    documents: Documents,
    softmax_scale: f32,
}

impl Inputs {
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
            documents: Documents::rows(batch, tokens),
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

    fn full_fwd(&self) -> AttentionOutput {
        full_attention_fwd(&self.q, &self.k, &self.v, &self.documents, self.softmax_scale).unwrap()
    }

    fn full_fwd_bwd(&self) -> AttentionGrads {
        let Self { q, k, v, dout, documents, softmax_scale, .. } = self;
        let output = self.full_fwd();
        let mut grads = AttentionGrads::zeros_like(q, k, v);
        full_attention_bwd(dout, q, k, v, &output, documents, *softmax_scale, &mut grads).unwrap();
        grads
    }
}

/// One group: each method over all sizes.
fn over_sizes(
    c: &mut Criterion,
    name: &str,
    products: usize,
    mut methods: impl FnMut(&mut BenchmarkGroup<'_, WallTime>, &Inputs),
) {
    let mut group = c.benchmark_group(name);
    group.sample_size(10);
    for size in SIZES {
        let inputs = Inputs::new(size);
        group.throughput(Throughput::Elements(inputs.operations(products)));
        methods(&mut group, &inputs);
    }
    group.finish();
}

fn forward(c: &mut Criterion) {
    over_sizes(c, "attention_fwd", 2, |group, inputs| {
        group.bench_function(inputs.label("full"), |b| b.iter(|| black_box(inputs.full_fwd())));
    });
}

fn forward_and_backward(c: &mut Criterion) {
    over_sizes(c, "attention_fwd_bwd", 7, |group, inputs| {
        group.bench_function(inputs.label("full"), |b| b.iter(|| black_box(inputs.full_fwd_bwd())));
    });
}

fn gemm(c: &mut Criterion) {
    const SIZE: usize = 2048;
    let mut random = Random::new(1);
    let mut tensor = || Tensor::from_vec(random.normal(SIZE * SIZE), [SIZE, SIZE]).unwrap();
    let [x, weight] = [tensor(), tensor()];
    let mut group = c.benchmark_group("gemm");
    group.throughput(Throughput::Elements((2 * SIZE * SIZE * SIZE) as u64)).sample_size(10);
    group.bench_function(format!("{SIZE}^3"), |b| b.iter(|| black_box(linear_fwd(&x, &weight).unwrap())));
    group.finish();
}

criterion_group!(benches, gemm, forward, forward_and_backward);
criterion_main!(benches);
