//! Throughput of the dense ops at the sizes of a small model.
//!
//! Matrix products count floating-point operations (criterion's `elem`), so `Gelem/s` reads as
//! GFLOP/s; everything else counts the bytes it must read and write once.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use ssa_kernels::ops::adamw::{AdamwOptions, Moments, adamw_step};
use ssa_kernels::ops::attention::alignment::{AlignmentOptions, alignment_bwd, alignment_fwd};
use ssa_kernels::ops::cross_entropy::{linear_cross_entropy_fwd, linear_cross_entropy_fwd_bwd};
use ssa_kernels::ops::embedding::{embedding_bwd, embedding_fwd};
use ssa_kernels::ops::gate::{GateBranch, gate_apply_bwd, gate_apply_fwd, gate_fwd};
use ssa_kernels::ops::grad_norm::GradScale;
use ssa_kernels::ops::linear::{linear_bwd_input, linear_bwd_weight, linear_fwd};
use ssa_kernels::ops::rms_norm::{rms_norm_bwd, rms_norm_fwd};
use ssa_kernels::ops::rope::{RopeScaling, RopeTable, rope_bwd, rope_fwd};
use ssa_kernels::ops::swiglu::{swiglu_bwd, swiglu_fwd};
use ssa_kernels::{Documents, Result, Tensor};
use ssa_testkit::Random;

/// All tokens of a batch.
const N: usize = 4096;
const HIDDEN: usize = 256;
/// Width of the feed-forward layer.
const F: usize = 688;
const HEADS: usize = 4;
/// Bytes, and the vocabulary of a common tokenizer.
const VOCABULARIES: [usize; 2] = [257, 32_000];

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let mut group = criterion.benchmark_group("dense");
    linear(&mut group);
    embedding(&mut group);
    gate(&mut group);
    rms_norm(&mut group)?;
    rope(&mut group)?;
    swiglu(&mut group);
    for vocab in VOCABULARIES {
        cross_entropy(&mut group, vocab);
    }
    adamw(&mut group);
    alignment(&mut group);
    group.finish();
    criterion.final_summary();
    Ok(())
}

fn linear(group: &mut BenchmarkGroup<'_, WallTime>) {
    let [x, mut dx] = [(); 2].map(|()| tensor([1, N, HIDDEN]));
    let [weight, mut dweight] = [(); 2].map(|()| tensor([F, HIDDEN]));
    let dout = tensor([1, N, F]);
    group.throughput(flops(2 * N * HIDDEN * F));
    group.bench_function("linear_fwd", |b| b.iter(|| linear_fwd(black_box(&x), &weight)));
    group.bench_function("linear_bwd_input", |b| {
        b.iter(|| linear_bwd_input(black_box(&dout), &weight, &mut dx))
    });
    group.bench_function("linear_bwd_weight", |b| {
        b.iter(|| linear_bwd_weight(black_box(&dout), &x, &mut dweight))
    });
}

/// A gather forward, a scatter backward; the ids repeat as in text.
fn embedding(group: &mut BenchmarkGroup<'_, WallTime>) {
    let [weight, mut dweight] = [(); 2].map(|()| tensor([VOCABULARIES[1], HIDDEN]));
    let dout = tensor([1, N, HIDDEN]);
    let ids = Random::new(1).below(VOCABULARIES[0] as u32, N);
    group.throughput(bytes(&[&dout; 2]));
    group.bench_function("embedding_fwd", |b| {
        b.iter(|| embedding_fwd(black_box(&ids), &weight, [1, N]))
    });
    group.bench_function("embedding_bwd", |b| {
        b.iter(|| embedding_bwd(black_box(&dout), &ids, &mut dweight))
    });
}

/// The sigmoid of one branch, and its product with the attention output.
fn gate(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (x, g_proj, out) = (
        tensor([1, N, HIDDEN]),
        tensor([3 * HEADS, HIDDEN]),
        tensor([1, N, HEADS, HIDDEN / HEADS]),
    );
    group.throughput(bytes(&[&x]));
    group.bench_function("gate_fwd", |b| {
        b.iter(|| gate_fwd(black_box(&x), &g_proj, GateBranch::Selection))
    });
    let gate = tensor([1, N, HEADS]);
    group.throughput(bytes(&[&out; 2]));
    group.bench_function("gate_apply_fwd", |b| b.iter(|| gate_apply_fwd(black_box(&out), &gate)));
    let dgated = tensor([1, N, HEADS, HIDDEN / HEADS]);
    let [mut dout, mut dgate] =
        [Tensor::zeros_like(&out).unwrap(), Tensor::zeros_like(&gate).unwrap()];
    group.throughput(bytes(&[&out; 4]));
    group.bench_function("gate_apply_bwd", |b| {
        b.iter(|| gate_apply_bwd(black_box(&dgated), &out, &gate, &mut dout, &mut dgate))
    });
}

fn alignment(group: &mut BenchmarkGroup<'_, WallTime>) {
    let [full, mut dfull] = [(); 2].map(|()| tensor([1, N, HEADS, HIDDEN / HEADS]));
    let [mut sparse, mut dsparse] = [(); 2].map(|()| tensor([1, N, HEADS, HIDDEN / HEADS]));
    sparse.as_mut_slice().unwrap().reverse();
    let options = AlignmentOptions::default();
    group.throughput(bytes(&[&full; 2]));
    group.bench_function("alignment_fwd", |b| {
        b.iter(|| alignment_fwd(black_box(&full), &sparse, None, &options));
    });
    group.throughput(bytes(&[&full; 6]));
    group.bench_function("alignment_bwd", |b| {
        b.iter(|| {
            alignment_bwd(black_box(&full), &sparse, None, &options, 1e-6, &mut dfull, &mut dsparse)
        });
    });
}

fn rms_norm(group: &mut BenchmarkGroup<'_, WallTime>) -> Result<()> {
    let [x, dout, mut dx] = [(); 3].map(|()| tensor([1, N, HIDDEN]));
    let [weight, mut dweight] = [(); 2].map(|()| tensor([HIDDEN]));
    let rstd = rms_norm_fwd(&x, &weight, 1e-5)?.rstd;
    group.throughput(bytes(&[&x, &x]));
    group.bench_function("rms_norm_fwd", |b| b.iter(|| rms_norm_fwd(black_box(&x), &weight, 1e-5)));
    group.throughput(bytes(&[&x, &dout, &dx, &dx]));
    group.bench_function("rms_norm_bwd", |b| {
        b.iter(|| rms_norm_bwd(black_box(&dout), &x, &weight, &rstd, &mut dx, &mut dweight));
    });
    Ok(())
}

fn rope(group: &mut BenchmarkGroup<'_, WallTime>) -> Result<()> {
    let documents = Documents::rows(4, N / 4).unwrap();
    let table = RopeTable::new(HIDDEN / HEADS, 500_000.0, &RopeScaling::None, N / 4)?;
    let mut x = tensor([4, N / 4, HEADS, HIDDEN / HEADS]);
    group.throughput(bytes(&[&x, &x]));
    group
        .bench_function("rope_fwd", |b| b.iter(|| rope_fwd(black_box(&mut x), &documents, &table)));
    group
        .bench_function("rope_bwd", |b| b.iter(|| rope_bwd(black_box(&mut x), &documents, &table)));
    Ok(())
}

fn swiglu(group: &mut BenchmarkGroup<'_, WallTime>) {
    let [gate, up, dout, mut dgate, mut dup] = [(); 5].map(|()| tensor([1, N, F]));
    group.throughput(bytes(&[&gate; 3]));
    group.bench_function("swiglu_fwd", |b| b.iter(|| swiglu_fwd(black_box(&gate), &up)));
    group.throughput(bytes(&[&gate; 7]));
    group.bench_function("swiglu_bwd", |b| {
        b.iter(|| swiglu_bwd(black_box(&dout), &gate, &up, &mut dgate, &mut dup))
    });
}

fn cross_entropy(group: &mut BenchmarkGroup<'_, WallTime>, vocab: usize) {
    let [x, mut dx] = [(); 2].map(|()| tensor([1, N, HIDDEN]));
    let [weight, mut dweight] = [(); 2].map(|()| tensor([vocab, HIDDEN]));
    let labels: Vec<i32> = (0..N).map(|token| (token * 7919 % vocab) as i32).collect();
    group.throughput(flops(2 * N * HIDDEN * vocab));
    group.bench_function(format!("cross_entropy_fwd/{vocab}"), |b| {
        b.iter(|| linear_cross_entropy_fwd(black_box(&x), &weight, &labels));
    });
    group.throughput(flops(3 * 2 * N * HIDDEN * vocab));
    group.bench_function(format!("cross_entropy_fwd_bwd/{vocab}"), |b| {
        b.iter(|| {
            linear_cross_entropy_fwd_bwd(
                black_box(&x),
                &weight,
                &labels,
                1e-3,
                0.0,
                &mut dx,
                &mut dweight,
            )
        });
    });
}

fn adamw(group: &mut BenchmarkGroup<'_, WallTime>) {
    let options = AdamwOptions { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let [mut param, grad] = [(); 2].map(|()| tensor([8 << 20]));
    let [mut m, mut v] = [(); 2].map(|()| Tensor::zeros([8 << 20]).unwrap());
    group.throughput(bytes(&[&grad; 7]));
    group.bench_function("adamw", |b| {
        b.iter(|| {
            let moments = Moments { m: &mut m, v: &mut v };
            adamw_step(
                black_box(&mut param),
                None,
                &grad,
                moments,
                &options,
                10,
                &GradScale::new(1.0),
            )
        });
    });
}

/// Standard normal values.
fn tensor<const R: usize>(shape: [usize; R]) -> Tensor {
    Tensor::from_vec(Random::new(1).normal(shape.iter().product()), shape).unwrap()
}

fn bytes(tensors: &[&Tensor]) -> Throughput {
    Throughput::Bytes(tensors.iter().map(|tensor| 4 * tensor.len() as u64).sum())
}

fn flops(count: usize) -> Throughput {
    Throughput::Elements(count as u64)
}
