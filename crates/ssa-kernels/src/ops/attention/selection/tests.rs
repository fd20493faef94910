use proptest::prelude::*;
use ssa_testkit::Random;

use super::super::golden::Case;
use super::super::pooling::mean_pool_fwd;
use super::*;
use crate::ops::testing::{assert_refused, tensor, to_f64, with_threads, zeros};

/// B, T, HQ, H, D, block_size, block_counts.
const SHAPES: [[usize; 7]; 7] = [
    [1, 1, 1, 1, 2, 16, 4],
    [1, 63, 3, 1, 6, 4, 2],
    [2, 100, 16, 1, 16, 2, 7],
    [1, 300, 8, 2, 64, 8, 5],
    [1, 100, 4, 4, 5, 1, 3],
    [1, 700, 16, 1, 64, 16, 16],
    [1, 90, 2, 1, 16, 16, 1],
];

const RULES: [SelectionRule; 2] = [SelectionRule::Exact, SelectionRule::Reference];

fn options(block_size: usize, block_counts: usize, rule: SelectionRule) -> SelectionOptions {
    SelectionOptions { budget: SparseBudget::new(block_size, block_counts).unwrap(), rule }
}

/// The importances of the reference, and its softmax scale.
fn importance(
    q: &Tensor,
    k_pooled: &Tensor,
    documents: &Documents,
    block_size: usize,
) -> (Vec<Vec<f64>>, f32) {
    let softmax_scale = (q.last_dim() as f32).powf(-0.5);
    let inputs = reference::SelectionInputs {
        q: &to_f64(q),
        k_pooled: &to_f64(k_pooled),
        q_heads: q.shape()[2],
        kv_heads: k_pooled.shape()[1],
        head_dim: q.last_dim(),
        softmax_scale: f64::from(softmax_scale),
    };
    (reference::importance(&inputs, documents, block_size).unwrap(), softmax_scale)
}

/// The rows of a selection, in the order of the reference's importances.
fn rows(indices: &HostBlockIndices) -> impl Iterator<Item = &[i32]> {
    let heads = indices.kv_heads();
    (0..indices.documents().total_tokens() * heads)
        .map(move |row| indices.selected(row / heads, row % heads))
}

/// The selection of a legal call, in host memory.
fn select(
    q: &Tensor,
    k_pooled: &Tensor,
    documents: &Documents,
    options: &SelectionOptions,
    softmax_scale: f32,
) -> HostBlockIndices {
    select_blocks(q, k_pooled, documents, options, softmax_scale).unwrap().to_host().unwrap()
}

#[test]
fn the_most_important_blocks_are_selected() {
    for sizes in SHAPES {
        let [batch, tokens, q_heads, kv_heads, head_dim, block_size, block_counts] = sizes;
        let mut random = Random::new(1);
        let packed = Documents::from_cu_seqlens(random.cu_seqlens(batch * tokens, 60)).unwrap();
        for documents in [Documents::rows(batch, tokens).unwrap(), packed] {
            let q = tensor(&mut random, [batch, tokens, q_heads, head_dim]);
            let k = tensor(&mut random, [batch, tokens, kv_heads, head_dim]);
            let k_pooled = mean_pool_fwd(&k, &documents, block_size).unwrap();
            let (importance, scale) = importance(&q, &k_pooled, &documents, block_size);
            let options = options(block_size, block_counts, SelectionRule::Exact);
            let indices = select(&q, &k_pooled, &documents, &options, scale);
            for (row, importance) in rows(&indices).zip(&importance) {
                assert_eq!(row.len(), block_counts.min(importance.len() + 1), "{sizes:?}");
                // Importances of f32 and f64 differ by rounding, which may swap near ties: the test
                // allows only those.
                let (selected, dropped): (Vec<_>, Vec<_>) = importance
                    .iter()
                    .enumerate()
                    .partition(|(block, _)| row.contains(&(*block as i32)));
                let least = selected.iter().map(|(_, i)| **i).fold(f64::INFINITY, f64::min);
                let most = dropped.iter().map(|(_, i)| **i).fold(0.0, f64::max);
                assert!(
                    least >= most - 1e-5 * (1.0 + most),
                    "{sizes:?}: kept {least}, dropped {most}"
                );
            }
        }
    }
}

/// Scores that are small integers times the (positive) query: equal where the integers are, else
/// far apart.
fn integer_case(random: &mut Random, tokens: usize, block_size: usize, levels: u32) -> [Tensor; 2] {
    let blocks = tokens.div_ceil(block_size);
    let levels = random.below(levels, blocks).into_iter();
    let k_pooled = levels.flat_map(|level| [level as f32 * 0.25, 0.0]).collect();
    let q = Tensor::from_vec([1.0, 0.0].repeat(tokens * 2), [1, tokens, 2, 2]).unwrap();
    [q, Tensor::from_vec(k_pooled, [blocks, 1, 2]).unwrap()]
}

#[test]
fn equals_the_reference_without_near_ties() {
    // Few levels make many exact ties, which must go to the lower block; many levels make almost
    // none.
    for levels in [1, 3, 40] {
        for (tokens, block_size, block_counts) in
            [(300, 4, 3), (300, 4, 4), (900, 16, 5), (900, 16, 12), (90, 2, 1)]
        {
            for rule in RULES {
                let [q, k_pooled] = integer_case(&mut Random::new(2), tokens, block_size, levels);
                let documents = Documents::rows(1, tokens).unwrap();
                let (importance, scale) = importance(&q, &k_pooled, &documents, block_size);
                let options = options(block_size, block_counts, rule);
                let indices = select(&q, &k_pooled, &documents, &options, scale);
                for (row, importance) in rows(&indices).zip(&importance) {
                    assert_eq!(
                        row,
                        reference::select(importance, &options),
                        "{options:?}: {importance:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn equal_blocks_go_to_the_lower_index() {
    let documents = Documents::rows(1, 40).unwrap();
    let [q, k_pooled] = integer_case(&mut Random::new(3), 40, 4, 1);
    let options = options(4, 3, SelectionRule::Exact);
    let indices = select(&q, &k_pooled, &documents, &options, 1.0);
    assert_eq!(indices.selected(3, 0), [0]);
    assert_eq!(indices.selected(11, 0), [0, 1, 2]);
    assert_eq!(indices.selected(39, 0), [0, 1, 9]);
}

#[test]
fn matches_the_released_code() {
    for case in Case::all() {
        let [q, k] = ["q", "k"].map(|name| case.tensor(name));
        let k_pooled = mean_pool_fwd(&k, &case.documents, case.block_size).unwrap();
        let released = case.block_indices().to_host().unwrap();
        let agrees = |rule| {
            let options = options(case.block_size, case.block_counts, rule);
            let indices = select(&q, &k_pooled, &case.documents, &options, case.softmax_scale());
            rows(&indices).eq(rows(&released))
        };
        assert!(agrees(SelectionRule::Reference), "{}: reference rule", case.name);
        let exact_below = case.block_counts.next_power_of_two() <= case.block_size / 2;
        assert_eq!(agrees(SelectionRule::Exact), exact_below, "{}: exact rule", case.name);
    }
}

#[test]
fn any_budget_is_legal() {
    let documents = Documents::from_cu_seqlens(vec![0, 1, 8, 20]).unwrap();
    let mut random = Random::new(4);
    let (q, k) = (tensor(&mut random, [1, 20, 2, 4]), tensor(&mut random, [1, 20, 1, 4]));
    for (block_size, block_counts) in [(1, 1), (3, usize::MAX / 3), (usize::MAX, 1), (50, 7)] {
        let k_pooled = mean_pool_fwd(&k, &documents, block_size).unwrap();
        let options = options(block_size, block_counts, SelectionRule::Exact);
        let indices = select(&q, &k_pooled, &documents, &options, 0.5);
        if block_counts > 1 {
            let all = BlockIndices::all(&documents, 1, block_size).unwrap();
            assert_eq!(indices, all.to_host().unwrap());
        } else {
            assert!(rows(&indices).all(|row| row.len() == 1));
        }
    }
    let empty = Documents::rows(1, 0).unwrap();
    let [q, k_pooled] = [zeros([1, 0, 2, 4]), zeros([0, 1, 4])];
    select(&q, &k_pooled, &empty, &options(4, 2, SelectionRule::Exact), 1.0);
}

#[test]
fn selection_by_means_pools_the_keys() {
    let mut random = Random::new(5);
    let documents = Documents::from_cu_seqlens(random.cu_seqlens(90, 40)).unwrap();
    let (q, k) = (tensor(&mut random, [2, 45, 6, 8]), tensor(&mut random, [2, 45, 2, 8]));
    let options = options(4, 3, SelectionRule::Exact);
    let k_pooled = mean_pool_fwd(&k, &documents, 4).unwrap();
    let by_means = select_by_means(&q, &k, &documents, &options, 0.3).unwrap();
    let expected = select(&q, &k_pooled, &documents, &options, 0.3);
    assert_eq!(by_means.to_host().unwrap(), expected);
}

#[test]
fn wrong_arguments_are_refused() {
    let rows = |batch, tokens| Documents::rows(batch, tokens).unwrap();
    let documents = rows(1, 8);
    let [q, k_pooled] = [zeros([1, 8, 2, 4]), zeros([2, 1, 4])];
    let select = |k: &Tensor, documents: &Documents, size, counts, rule| {
        select_blocks(&q, k, documents, &options(size, counts, rule), 1.0)
    };
    let [exact, released] = RULES;
    select(&k_pooled, &documents, 4, 2, exact).unwrap();
    assert_refused(select(&k_pooled, &documents, 2, 2, exact), "k_pooled");
    select(&k_pooled, &rows(2, 4), 4, 2, exact).unwrap();
    assert_refused(select(&k_pooled, &rows(1, 7), 4, 2, exact), "documents");
    assert_refused(select(&zeros([2, 3, 4]), &documents, 4, 2, exact), "k_pooled");
    assert_refused(select(&zeros([2, 1, 3]), &documents, 4, 2, exact), "k_pooled");
    select(&k_pooled, &documents, 4, 4, released).unwrap();
    assert_refused(select(&k_pooled, &documents, 4, 5, released), "block_counts");
    assert_refused(select(&zeros([3, 1, 4]), &documents, 3, 2, released), "block_size");
    assert_refused(select(&zeros([8, 1, 4]), &documents, 1, 1, released), "block_size");
    let by_means = |k: &Tensor, options| select_by_means(&q, k, &documents, &options, 1.0);
    by_means(&zeros([1, 8, 1, 4]), options(4, 2, exact)).unwrap();
    assert_refused(by_means(&zeros([1, 8, 3, 4]), options(4, 2, exact)), "k");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn threads_do_not_change_the_selection(
        tokens in 1..400usize,
        size in 1..9usize,
        counts in 1..9usize,
        seed in 0..1000u64,
    ) {
        let mut random = Random::new(seed);
        let documents = Documents::from_cu_seqlens(random.cu_seqlens(tokens, 200)).unwrap();
        let q = tensor(&mut random, [1, tokens, 6, 8]);
        let k = tensor(&mut random, [1, tokens, 2, 8]);
        let k_pooled = mean_pool_fwd(&k, &documents, size).unwrap();
        let options = options(size, counts, SelectionRule::Exact);
        let [one, three] = [1, 3].map(|threads| {
            with_threads(threads, || select(&q, &k_pooled, &documents, &options, 0.3))
        });
        prop_assert_eq!(one, three);
    }
}
