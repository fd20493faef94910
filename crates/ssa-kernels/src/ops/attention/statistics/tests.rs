use ssa_testkit::{Random, Tolerance, assert_close};

use super::super::reference::AttentionInputs;
use super::*;
use crate::ops::testing::{assert_refused, tensor, to_f64};
use crate::{Documents, Tensor};

/// Inputs of one comparison.
struct Case {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: Documents,
    block_indices: BlockIndices,
    softmax_scale: f32,
}

impl Case {
    /// Documents of at most 50 tokens. Every token keeps its own block and, at random, half of the
    /// earlier ones.
    fn new(sizes: [usize; 5], block_size: usize) -> Self {
        Self::with_longest(sizes, block_size, 50)
    }

    fn with_longest(
        [batch, tokens, kv_heads, group, head_dim]: [usize; 5],
        block_size: usize,
        longest: usize,
    ) -> Self {
        let mut random = Random::new(11);
        let q = tensor(&mut random, [batch, tokens, kv_heads * group, head_dim]);
        let [k, v] = [(); 2].map(|()| tensor(&mut random, [batch, tokens, kv_heads, head_dim]));
        let documents =
            Documents::from_cu_seqlens(random.cu_seqlens(batch * tokens, longest)).unwrap();
        let block_counts = longest.div_ceil(block_size);
        let mut indices = Vec::new();
        for position in documents.positions() {
            let current = (position / block_size) as i32;
            for _ in 0..kv_heads {
                let coins = random.below(2, current as usize);
                let mut row: Vec<i32> =
                    (0..current).filter(|&block| coins[block as usize] == 1).collect();
                row.push(current);
                row.resize(block_counts, -1);
                indices.extend(row);
            }
        }
        let block_indices =
            BlockIndices::from_vec(indices, &documents, kv_heads, block_size, block_counts)
                .unwrap();
        Self { q, k, v, documents, block_indices, softmax_scale: 0.4 }
    }

    fn run(&self) -> AttentionStatistics {
        attention_statistics(&self.call(), &self.block_indices).unwrap()
    }

    fn call(&self) -> AttentionCall<'_> {
        let Self { q, k, v, documents, softmax_scale, .. } = self;
        AttentionCall { q, k, v, documents, softmax_scale: *softmax_scale }
    }
}

#[test]
fn matches_the_reference_and_the_theorem() {
    for (sizes, block_size, longest) in [
        ([1, 1, 1, 1, 2], 4, 50),
        ([2, 63, 2, 3, 6], 5, 50),
        ([1, 100, 1, 16, 16], 16, 50),
        ([3, 20, 2, 1, 64], 1, 50),
        // Several tiles of keys, and blocks across their borders.
        ([1, 500, 2, 2, 8], 48, 400),
        ([1, 400, 1, 5, 4], 3, 400),
    ] {
        let case = Case::with_longest(sizes, block_size, longest);
        let statistics = case.run();
        let [q, k, v] = [&case.q, &case.k, &case.v].map(to_f64);
        let inputs = AttentionInputs {
            q: &q,
            k: &k,
            v: &v,
            q_heads: sizes[2] * sizes[3],
            kv_heads: sizes[2],
            head_dim: sizes[4],
            softmax_scale: f64::from(case.softmax_scale),
        };
        let [sparsity, entropy, delta, largest, distance, bound, error] =
            reference::statistics(&inputs, &case.block_indices.to_host().unwrap()).unwrap();
        // Only the rounding of the results to f32 separates the two.
        let tolerance = Tolerance { atol: 1e-12, rtol: 1e-7 };
        assert_close("sparsity", &statistics.sparsity, &sparsity, tolerance);
        assert_close("entropy_bits", &statistics.entropy_bits, &entropy, tolerance);
        assert_close("dropped_mass", &statistics.dropped_mass, &delta, tolerance);
        assert_close(
            "max_dropped_value_norm",
            &statistics.max_dropped_value_norm,
            &largest,
            tolerance,
        );
        assert_close("distance", &statistics.distance, &distance, tolerance);
        assert_close("bound", &statistics.bound, &bound, tolerance);
        assert!(error.iter().all(|&error| error < 1e-13));
        assert!(statistics.identity_error.iter().all(|&error| error < 1e-13));
        for (distance, bound) in statistics.distance.iter().zip(&statistics.bound) {
            assert!(*distance <= bound * 1.000_001 + 1e-12, "{distance} exceeds its bound {bound}");
        }
        for (sparsity, delta) in statistics.sparsity.iter().zip(&statistics.dropped_mass) {
            assert!((sparsity + delta - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn nothing_is_dropped_when_all_blocks_are_selected() {
    let mut case = Case::new([2, 63, 2, 3, 6], 5);
    case.block_indices = BlockIndices::all(&case.documents, 2, 5).unwrap();
    let statistics = case.run();
    let expected = vec![0.0; 2 * 63 * 6];
    assert_eq!(statistics.dropped_mass, expected);
    assert_eq!(statistics.max_dropped_value_norm, expected);
    assert_eq!(statistics.bound, expected);
    assert!(statistics.distance.iter().all(|&distance| distance < 1e-13));
    assert!(statistics.sparsity.iter().all(|&sparsity| (sparsity - 1.0).abs() < 1e-6));
}

#[test]
fn equal_scores_have_the_entropy_of_the_uniform_distribution() {
    let mut case = Case::new([1, 40, 1, 2, 4], 8);
    case.q.fill_zero();
    let statistics = case.run();
    for (position, heads) in case.documents.positions().zip(statistics.entropy_bits.chunks(2)) {
        let expected = vec![((position + 1) as f64).log2(); 2];
        assert_close("entropy_bits", heads, &expected, Tolerance::F32);
    }
}

#[test]
fn a_selection_without_weight_still_has_an_output() {
    // The dropped key has all the weight: next to it, e^-2000 of the selected one is 0 in f64.
    let documents = Documents::rows(1, 2).unwrap();
    let one = |values: [f32; 2]| Tensor::from_vec(values.to_vec(), [1, 2, 1, 1]).unwrap();
    let [q, k, v] = [one([0.0, 1.0]), one([2000.0, 0.0]), one([3.0, 5.0])];
    let block_indices = BlockIndices::from_vec(vec![0, 1], &documents, 1, 1, 1).unwrap();
    let call = AttentionCall { q: &q, k: &k, v: &v, documents: &documents, softmax_scale: 1.0 };
    let statistics = attention_statistics(&call, &block_indices).unwrap();
    assert_eq!(statistics.sparsity, [1.0, 0.0]);
    assert_eq!(statistics.dropped_mass, [0.0, 1.0]);
    assert_eq!(statistics.entropy_bits, [0.0, 0.0]);
    assert_eq!(statistics.distance, [0.0, 2.0]);
    assert_eq!(statistics.bound, [0.0, 8.0]);
    assert_eq!(statistics.identity_error, [0.0, 0.0]);
}

#[test]
fn other_documents_and_heads_are_refused() {
    let case = Case::new([2, 63, 2, 3, 6], 5);
    let (call, documents) = (case.call(), &case.documents);
    let run = |indices: Result<BlockIndices>| attention_statistics(&call, &indices.unwrap());
    let rows = Documents::rows(2, 63).unwrap();
    assert_refused(run(BlockIndices::all(&rows, 2, 5)), "block_indices");
    assert_refused(run(BlockIndices::all(documents, 1, 5)), "block_indices");
    run(BlockIndices::all(documents, 2, 5)).unwrap();
    let wrong = AttentionCall { v: call.q, ..call };
    assert_refused(attention_statistics(&wrong, &case.block_indices), "v");
}
