//! `cargo bench -p ssa-data --bench loader` measures tokens (`elem`) per second of packing and of
//! loading batches, on a synthetic shard of 50 million tokens.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a benchmark may panic and print")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ssa_data::{
    Corpus, Loader, PackOptions, PackedRows, Packing, Prefetch, Remainder, ShardWriter,
    TokenSource, TokenType, pack_documents,
};

const TOKENS: u64 = 50_000_000;
const VOCAB_SIZE: usize = 50_000;
const EOS: u32 = 0;
const SEQUENCE_LENGTH: usize = 4096;
const BATCH_SIZE: usize = 8;

/// Writes documents of 20 to about 20,000 tokens, most of them short, like web text.
fn write_shard(directory: &Path) {
    let mut writer =
        ShardWriter::create(&directory.join("00000"), TokenType::for_vocabulary(VOCAB_SIZE))
            .unwrap();
    let mut state = 1_u64;
    let mut next = move || {
        // A linear congruential generator: the numbers only need to be spread out.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    while writer.tokens() < TOKENS {
        let length = (20.0 * (next() as f64 / (1_u64 << 31) as f64 * 6.9).exp()) as u64;
        let mut ids: Vec<u32> =
            (0..length).map(|_| 1 + next() as u32 % (VOCAB_SIZE as u32 - 1)).collect();
        ids.push(EOS);
        writer.push(&ids).unwrap();
    }
    writer.finish().unwrap();
}

fn packed(source: &Arc<TokenSource>, packing: Packing) -> PackedRows {
    let options = PackOptions {
        sequence_length: SEQUENCE_LENGTH,
        packing,
        seed: 0,
        remainder: Remainder::Drop,
    };
    pack_documents(Arc::clone(source), &source.all_documents().unwrap(), &options).unwrap()
}

fn packing(criterion: &mut Criterion, source: &Arc<TokenSource>) {
    let mut group = criterion.benchmark_group("pack");
    group.throughput(Throughput::Elements(TOKENS)).sample_size(10);
    for &packing in Packing::ALL {
        let rows = packed(source, packing);
        eprintln!(
            "{packing}: {} documents in {} rows, {:.2} % used, {:.1} bytes of index per row",
            source.documents(),
            rows.len(),
            100.0 * rows.utilization(),
            rows.index_bytes() as f64 / rows.len() as f64
        );
        group.bench_function(packing.name(), |bencher| bencher.iter(|| packed(source, packing)));
    }
    group.finish();
}

fn loading(criterion: &mut Criterion, source: &Arc<TokenSource>) {
    let mut group = criterion.benchmark_group("load");
    group.throughput(Throughput::Elements((BATCH_SIZE * SEQUENCE_LENGTH) as u64));
    for packing in [Packing::Concat, Packing::BestFit] {
        let loader = Loader::new(packed(source, packing), BATCH_SIZE, 0).unwrap();
        let mut index = 0;
        group.bench_function(BenchmarkId::new("batch", packing), |bencher| {
            bencher.iter(|| {
                index += 1;
                black_box(loader.batch(index).unwrap())
            });
        });
    }
    group.finish();
}

/// How long a step waits for its batch if computing takes longer than reading.
fn waiting(criterion: &mut Criterion, source: &Arc<TokenSource>) {
    let mut group = criterion.benchmark_group("wait");
    let loader = Loader::new(packed(source, Packing::Concat), BATCH_SIZE, 0).unwrap();
    let mut prefetch = Prefetch::new(loader, 2).unwrap();
    let mut index = 0;
    group.sample_size(10).bench_function("batch read ahead", |bencher| {
        bencher.iter_custom(|batches| {
            let mut waited = Duration::ZERO;
            for _ in 0..batches {
                std::thread::sleep(Duration::from_millis(3));
                let start = Instant::now();
                black_box(prefetch.batch(index).unwrap());
                waited += start.elapsed();
                index += 1;
            }
            waited
        });
    });
    group.finish();
}

fn benchmarks(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    write_shard(directory.path());
    let corpus = Corpus::open(directory.path()).unwrap();
    let source = Arc::new(TokenSource::shards(corpus, VOCAB_SIZE, EOS));
    packing(criterion, &source);
    loading(criterion, &source);
    waiting(criterion, &source);
}

criterion_group!(loader, benchmarks);
criterion_main!(loader);
