use ssa_testkit::Random;

use super::*;
use crate::ops::attention::cached::append_kv;
use crate::ops::testing::{assert_refused, assert_same, tensor, values};

const SHAPE: KvShape =
    KvShape { layers: 2, kv_heads: 3, head_dim: 5, page_size: 4, value_means: true };

fn cache(capacity: usize) -> KvCache {
    KvCache::new(&Device::Cpu, SHAPE, capacity).unwrap()
}

/// Extends sequences with random keys and values in both layers and returns those of the last.
fn fill(cache: &mut KvCache, chunks: &[(SequenceId, usize)], seed: u64) -> [Tensor; 2] {
    let sequences = cache.extend(chunks).unwrap();
    let tokens = sequences.sequences().total_tokens();
    let mut random = Random::new(seed);
    let mut last = [(); 2].map(|()| Tensor::default());
    for layer in 0..2 {
        last = [(); 2].map(|()| tensor(&mut random, [1, tokens, 3, 5]));
        append_kv(cache, layer, &last[0], &last[1], &sequences).unwrap();
    }
    last
}

#[test]
fn what_was_written_comes_back() {
    let mut cache = cache(100);
    let [a, b] = [cache.add_sequence(), cache.add_sequence()];
    let [first_k, first_v] = fill(&mut cache, &[(a, 3), (b, 9)], 1);
    let [second_k, second_v] = fill(&mut cache, &[(b, 1), (a, 2)], 2);
    let width = 3 * 5;
    for (rows, first, second) in [
        (|rows: CachedRows| rows.keys, first_k, second_k),
        (|rows: CachedRows| rows.values, first_v, second_v),
    ] as [(fn(CachedRows) -> Tensor, Tensor, Tensor); 2]
    {
        let (first, second) = (values(&first), values(&second));
        let expected = [&first[..3 * width], &second[width..]].concat();
        assert_eq!(values(&rows(cache.rows(1, a).unwrap())), expected);
        let expected = [&first[3 * width..], &second[..width]].concat();
        assert_eq!(values(&rows(cache.rows(1, b).unwrap())), expected);
    }
}

#[test]
fn a_mean_is_that_of_its_page_however_the_page_was_filled() {
    let whole = {
        let mut cache = cache(100);
        let id = cache.add_sequence();
        fill(&mut cache, &[(id, 80)], 3);
        cache.rows(1, id).unwrap()
    };
    let keys = Random::new(3).normal(4 * 80 * 15);
    let (k, v) = (&keys[2 * 80 * 15..3 * 80 * 15], &keys[3 * 80 * 15..]);
    let mut cache = cache(100);
    let id = cache.add_sequence();
    let mut done = 0;
    for tokens in [1, 2, 6, 30, 41] {
        let sequences = cache.extend(&[(id, tokens)]).unwrap();
        let rows = done * 15..(done + tokens) * 15;
        let part = |x: &[f32]| Tensor::from_vec(x[rows.clone()].to_vec(), [1, tokens, 3, 5]);
        append_kv(&mut cache, 1, &part(k).unwrap(), &part(v).unwrap(), &sequences).unwrap();
        done += tokens;
    }
    let parts = cache.rows(1, id).unwrap();
    assert_same(&parts.keys, &whole.keys);
    assert_same(&parts.key_means, &whole.key_means);
    assert_same(&parts.value_means.unwrap(), &whole.value_means.unwrap());
    assert_eq!(whole.key_means.shape(), [20, 3, 5]);
    let mean = |column: usize| {
        (0..4).map(|token| k[token * 15 + column]).fold(0.0, |sum, key| sum + key) * 0.25
    };
    assert_eq!(values(&parts.key_means)[..15], (0..15).map(mean).collect::<Vec<_>>());
}

#[test]
fn pages_go_back_and_are_used_again() {
    let mut cache = cache(16);
    let [a, b] = [cache.add_sequence(), cache.add_sequence()];
    fill(&mut cache, &[(a, 9)], 4);
    assert_eq!((cache.free(), cache.capacity(), cache.tokens(a).unwrap()), (4, 16, 9));
    let error = cache.extend(&[(b, 3), (a, 4)]).unwrap_err();
    assert_eq!(error, KernelError::CacheFull { needed: 8, free: 4, capacity: 16 });
    assert_eq!((cache.free(), cache.tokens(a).unwrap()), (4, 9));
    let before = cache.rows(0, a).unwrap();
    cache.truncate(a, 5).unwrap();
    fill(&mut cache, &[(b, 8)], 5);
    let after = cache.rows(0, a).unwrap();
    assert_eq!(values(&after.keys), &values(&before.keys)[..5 * 15]);
    assert_eq!(values(&after.key_means), &values(&before.key_means)[..15]);
    cache.remove_sequence(b).unwrap();
    assert_eq!(cache.free(), 8);
    assert_refused(cache.tokens(b), "sequence");
}

#[test]
fn a_fork_is_independent() {
    let mut cache = cache(160);
    let id = cache.add_sequence();
    fill(&mut cache, &[(id, 70)], 6);
    let copy = cache.fork(id).unwrap();
    let before = cache.rows(1, copy).unwrap();
    assert_same(&before.key_means, &cache.rows(1, id).unwrap().key_means);
    cache.truncate(id, 0).unwrap();
    fill(&mut cache, &[(id, 20)], 7);
    let after = cache.rows(1, copy).unwrap();
    assert_same(&after.keys, &before.keys);
    assert_same(&after.value_means.unwrap(), &before.value_means.unwrap());
    let free = cache.free();
    assert!(matches!(cache.fork(copy), Err(KernelError::CacheFull { .. })));
    assert_eq!(cache.free(), free);
}

#[test]
fn impossible_calls_are_refused() {
    for (shape, argument) in [
        (KvShape { layers: 0, ..SHAPE }, "shape.layers"),
        (KvShape { kv_heads: 0, ..SHAPE }, "shape.kv_heads"),
        (KvShape { head_dim: 0, ..SHAPE }, "shape.head_dim"),
        (KvShape { page_size: 0, ..SHAPE }, "shape.page_size"),
        (KvShape { page_size: usize::MAX, ..SHAPE }, "capacity"),
        (KvShape { layers: usize::MAX, ..SHAPE }, "capacity"),
    ] {
        assert_refused(KvCache::new(&Device::Cpu, shape, 1), argument);
    }
    for capacity in [0, 1 << 31, usize::MAX] {
        assert_refused(KvCache::new(&Device::Cpu, SHAPE, capacity), "capacity");
    }
    let mut cache = cache(16);
    let id = cache.add_sequence();
    assert_refused(cache.extend(&[(id, 1), (id, 1)]), "chunks");
    assert_refused(cache.extend(&[(id, 0)]), "chunks");
    assert_refused(cache.extend(&[(id, usize::MAX)]), "chunks");
    assert_refused(cache.truncate(id, 1), "tokens");
    assert_refused(cache.rows(2, id), "layer");
    cache.extend(&[]).unwrap();
    cache.remove_sequence(id).unwrap();
    assert_refused(cache.extend(&[(id, 1)]), "sequence");
    assert_refused(cache.remove_sequence(id), "sequence");
    assert_refused(cache.fork(id), "sequence");
}

#[test]
fn memory_is_what_pages_take() {
    // On the CPU a head has 5 x 16 keys and 4 x 16 values of tokens, 5 x 16 and 16 x 16 of means.
    let page = 2 * 3 * (5 * 16 + 4 * 16) * 4;
    let means = 2 * 3 * (5 * 16 + 16 * 16) * 4;
    assert_eq!(SHAPE.bytes_per_token(&Device::Cpu), page / 4 + means / 64);
}
