use std::collections::BTreeSet;

use proptest::prelude::*;
use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::super::golden::Case;
use super::super::reference as attention;
use super::super::selection::HostBlockIndices;
use super::*;
use crate::Documents;
use crate::ops::testing::{
    assert_refused, assert_same, dot, normal_f64, ones_like, plus_one, tensor, to_f64, values,
    with_threads, zeros,
};

/// B, T, HQ, H, D, block_size, block_counts: groups, head sizes and blocks off the vector lengths,
/// partial last blocks.
const SHAPES: [[usize; 7]; 9] = [
    [1, 1, 1, 1, 2, 16, 4],
    [1, 63, 3, 1, 6, 16, 2],
    [2, 100, 16, 1, 16, 16, 3],
    [1, 100, 8, 2, 64, 8, 5],
    [1, 37, 4, 4, 5, 1, 7],
    [2, 40, 6, 2, 32, 5, 3],
    [1, 150, 13, 1, 64, 24, 3],
    [1, 20, 2, 1, 130, 64, 1],
    [1, 600, 16, 1, 64, 16, 16],
];

/// The tensors of one call.
struct SparseInputs {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dout: Tensor,
    documents: Documents,
    block_indices: BlockIndices,
    softmax_scale: f32,
}

impl SparseInputs {
    fn new(random: &mut Random, sizes: [usize; 7], documents: Documents) -> Self {
        let [batch, tokens, q_heads, kv_heads, head_dim, block_size, block_counts] = sizes;
        let [q, dout] = [(); 2].map(|()| tensor(random, [batch, tokens, q_heads, head_dim]));
        let [k, v] = [(); 2].map(|()| tensor(random, [batch, tokens, kv_heads, head_dim]));
        let block_indices = random_indices(random, &documents, kv_heads, block_size, block_counts);
        let softmax_scale = (head_dim as f32).powf(-0.5);
        Self { q, k, v, dout, documents, block_indices, softmax_scale }
    }

    fn run(&self) -> (AttentionOutput, AttentionGrads) {
        let Self { q, k, v, dout, block_indices, .. } = self;
        let output = sparse_attention_fwd(&self.call(), block_indices).unwrap();
        let mut grads = AttentionGrads::zeros_like(q, k, v).unwrap();
        sparse_attention_bwd(dout, &self.call(), block_indices, &output, &mut grads).unwrap();
        (output, grads)
    }

    fn call(&self) -> AttentionCall<'_> {
        let Self { q, k, v, documents, softmax_scale, .. } = self;
        AttentionCall { q, k, v, documents, softmax_scale: *softmax_scale }
    }

    fn host_indices(&self) -> HostBlockIndices {
        self.block_indices.to_host().unwrap()
    }

    /// Calls `check` with the inputs of the reference and dout.
    fn with_f64<R>(&self, check: impl FnOnce(&attention::AttentionInputs<'_>, &[f64]) -> R) -> R {
        let [q, k, v, dout] = [&self.q, &self.k, &self.v, &self.dout].map(to_f64);
        let inputs = attention::AttentionInputs {
            q: &q,
            k: &k,
            v: &v,
            q_heads: self.q.shape()[2],
            kv_heads: self.k.shape()[2],
            head_dim: self.q.last_dim(),
            softmax_scale: f64::from(self.softmax_scale),
        };
        check(&inputs, &dout)
    }
}

/// The own block and `block_counts - 1` random earlier ones.
fn random_indices(
    random: &mut Random,
    documents: &Documents,
    kv_heads: usize,
    block_size: usize,
    block_counts: usize,
) -> BlockIndices {
    let mut indices = Vec::new();
    for position in documents.positions() {
        let current = (position / block_size) as u32;
        for _ in 0..kv_heads {
            let mut row = BTreeSet::from([current]);
            while row.len() < block_counts.min(current as usize + 1) {
                row.extend(random.below(current, 1));
            }
            let used = row.len();
            indices.extend(row.iter().map(|&block| block as i32));
            indices.extend(vec![-1; block_counts - used]);
        }
    }
    BlockIndices::from_vec(indices, documents, kv_heads, block_size, block_counts).unwrap()
}

#[test]
fn matches_the_reference() {
    for sizes in SHAPES {
        let mut random = Random::new(1);
        let tokens = sizes[0] * sizes[1];
        let packed = Documents::from_cu_seqlens(random.cu_seqlens(tokens, 50)).unwrap();
        let ones = Documents::from_cu_seqlens((0..=tokens).collect()).unwrap();
        for documents in [Documents::rows(sizes[0], sizes[1]).unwrap(), packed, ones] {
            let inputs = SparseInputs::new(&mut random, sizes, documents);
            let (output, grads) = inputs.run();
            inputs.with_f64(|reference_inputs, dout| {
                let indices = inputs.host_indices();
                let (out, lse) = reference::forward(reference_inputs, &indices).unwrap();
                let (dq, dk, dv) = reference::backward(dout, reference_inputs, &indices).unwrap();
                let name = |name: &str| format!("{name} of {sizes:?}");
                assert_close(&name("out"), values(&output.out), &out, Tolerance::F32);
                assert_close(&name("lse"), values(&output.lse), &lse, Tolerance::F32);
                // A key's gradient sums over all queries that selected it, terms of order one each.
                let tolerance = Tolerance::F32.scaled(4.0);
                assert_close(&name("dq"), values(&grads.dq), &dq, tolerance);
                assert_close(&name("dk"), values(&grads.dk), &dk, tolerance);
                assert_close(&name("dv"), values(&grads.dv), &dv, tolerance);
            });
        }
    }
}

#[test]
fn matches_the_released_code() {
    for case in Case::all() {
        let [q, k, v, gate, dout] = ["q", "k", "v", "gate", "dout"].map(|name| case.tensor(name));
        let (block_indices, scale) = (case.block_indices(), case.softmax_scale());
        // The file holds the gated output; its gradient passes through the gate first.
        let gated = |x: &Tensor| {
            let gates = values(&gate).iter();
            let rows = values(x).chunks(x.last_dim()).zip(gates);
            let values = rows.flat_map(|(x, gate)| x.iter().map(move |x| x * gate)).collect();
            Tensor::from_vec(values, x.shape()).unwrap()
        };
        let documents = &case.documents;
        let call = AttentionCall { q: &q, k: &k, v: &v, documents, softmax_scale: scale };
        let output = sparse_attention_fwd(&call, &block_indices).unwrap();
        let mut grads = AttentionGrads::zeros_like(&q, &k, &v).unwrap();
        let dout = gated(&dout);
        sparse_attention_bwd(&dout, &call, &block_indices, &output, &mut grads).unwrap();
        for (name, actual) in [
            ("out_sparse", &gated(&output.out)),
            ("dq_sparse", &grads.dq),
            ("dk_sparse", &grads.dk),
            ("dv_sparse", &grads.dv),
        ] {
            // The released kernel computes in f32 as well, in another order.
            let tolerance = Tolerance { atol: 1e-4, rtol: 1e-4 };
            let expected = case.golden.tensor(name).to_f64();
            assert_close(&format!("{name} of {}", case.name), values(actual), &expected, tolerance);
        }
    }
}

#[test]
fn gradients_are_added() {
    let mut random = Random::new(2);
    let inputs =
        SparseInputs::new(&mut random, [1, 40, 4, 2, 8, 4, 3], Documents::rows(1, 40).unwrap());
    let (output, once) = inputs.run();
    let [dq, dk, dv] = [&inputs.q, &inputs.k, &inputs.v].map(ones_like);
    let mut added = AttentionGrads { dq, dk, dv };
    let SparseInputs { dout, block_indices, .. } = &inputs;
    sparse_attention_bwd(dout, &inputs.call(), block_indices, &output, &mut added).unwrap();
    for (added, once) in [(added.dq, once.dq), (added.dk, once.dk), (added.dv, once.dv)] {
        assert_close("gradient, added to ones", values(&added), &plus_one(&once), Tolerance::F32);
    }
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(3);
    let documents = Documents::from_cu_seqlens(vec![0, 7, 8]).unwrap();
    let block_indices = random_indices(&mut random, &documents, 1, 2, 2).to_host().unwrap();
    let [q, k, v, dout] = [32, 16, 16, 32].map(|len| normal_f64(&mut random, len));
    let inputs = attention::AttentionInputs {
        q: &q,
        k: &k,
        v: &v,
        q_heads: 2,
        kv_heads: 1,
        head_dim: 2,
        softmax_scale: 0.7,
    };
    let loss = |inputs: attention::AttentionInputs<'_>| {
        dot(&reference::forward(&inputs, &block_indices).unwrap().0, &dout)
    };
    let (dq, dk, dv) = reference::backward(&dout, &inputs, &block_indices).unwrap();
    assert_gradient("dq", &q, &dq, |q| loss(attention::AttentionInputs { q, ..inputs }));
    assert_gradient("dk", &k, &dk, |k| loss(attention::AttentionInputs { k, ..inputs }));
    assert_gradient("dv", &v, &dv, |v| loss(attention::AttentionInputs { v, ..inputs }));
}

#[test]
fn no_tokens_give_an_empty_result() {
    let documents = Documents::rows(1, 0).unwrap();
    let inputs = SparseInputs::new(&mut Random::new(4), [1, 0, 2, 1, 4, 16, 2], documents);
    let (output, grads) = inputs.run();
    assert!(output.out.is_empty() && output.lse.is_empty() && grads.dk.is_empty());
}

#[test]
fn scores_far_from_zero_stay_finite() {
    let mut inputs = SparseInputs::new(
        &mut Random::new(5),
        [1, 40, 2, 1, 4, 4, 3],
        Documents::rows(1, 40).unwrap(),
    );
    inputs.softmax_scale = -300.0;
    let (output, _) = inputs.run();
    let (out, _) = inputs.with_f64(|reference_inputs, _| {
        reference::forward(reference_inputs, &inputs.host_indices()).unwrap()
    });
    // Scores near 1000 carry an error of 1e-4, and weights the same relative one.
    assert_close("out", values(&output.out), &out, Tolerance::F32.scaled(100.0));
}

#[test]
fn wrong_arguments_are_refused() {
    let [q, k] = [zeros([1, 4, 2, 2]), zeros([1, 4, 1, 2])];
    let documents = Documents::rows(1, 4).unwrap();
    let other_documents = Documents::rows(2, 2).unwrap();
    let all = |documents, heads| BlockIndices::all(documents, heads, 2).unwrap();
    let indices = all(&documents, 1);
    let call = AttentionCall { q: &q, k: &k, v: &k, documents: &documents, softmax_scale: 1.0 };
    let output = sparse_attention_fwd(&call, &indices).unwrap();
    let wrong = AttentionCall { v: &q, ..call };
    assert_refused(sparse_attention_fwd(&wrong, &indices), "v");
    assert_refused(sparse_attention_fwd(&call, &all(&documents, 2)), "block_indices");
    assert_refused(sparse_attention_fwd(&call, &all(&other_documents, 1)), "block_indices");
    let wrong = AttentionCall { documents: &other_documents, ..call };
    assert_refused(sparse_attention_fwd(&wrong, &indices), "block_indices");

    let backward = |dout, grads: [&Tensor; 3]| {
        let mut grads = AttentionGrads::zeros_like(grads[0], grads[1], grads[2]).unwrap();
        sparse_attention_bwd(dout, &call, &indices, &output, &mut grads)
    };
    backward(&q, [&q, &k, &k]).unwrap();
    assert_refused(backward(&k, [&q, &k, &k]), "dout");
    assert_refused(backward(&q, [&q, &q, &k]), "grads.dk");
    assert_refused(backward(&q, [&q, &k, &q]), "grads.dv");
}

#[test]
fn selections_with_more_slots_than_memory_can_hold_are_refused() {
    // Without tokens a selection has no slots in memory, however many a row has.
    let documents = Documents::rows(1, 0).unwrap();
    let indices = BlockIndices::from_vec(vec![], &documents, 1, 16, 1 << 60).unwrap();
    let [q, k] = [zeros([1, 0, 8, 2]), zeros([1, 0, 1, 2])];
    let call = AttentionCall { q: &q, k: &k, v: &k, documents: &documents, softmax_scale: 1.0 };
    assert_refused(sparse_attention_fwd(&call, &indices), "block_indices");
}

/// B = 1, T, HQ, H, D, block_size, block_counts.
fn sizes() -> impl Strategy<Value = [usize; 7]> {
    (1..150usize, 1..5usize, 1..3usize, 1..40usize, 1..20usize, 1..6usize).prop_map(
        |(tokens, group, heads, dim, size, counts)| {
            [1, tokens, group * heads, heads, dim, size, counts]
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn all_blocks_selected_is_full_attention(sizes in sizes(), seed in 0..1000u64) {
        let mut random = Random::new(seed);
        let documents = Documents::from_cu_seqlens(random.cu_seqlens(sizes[1], 60)).unwrap();
        let mut inputs = SparseInputs::new(&mut random, sizes, documents);
        inputs.block_indices =
            BlockIndices::all(&inputs.documents, sizes[3], sizes[5]).unwrap();
        let (output, grads) = inputs.run();
        let starts: Vec<usize> = inputs.documents.starts().collect();
        inputs.with_f64(|reference_inputs, dout| {
            let causal = |token: usize, _| (starts[token]..=token).collect();
            let (out, lse) = attention::forward(reference_inputs, causal).unwrap();
            let (dq, dk, dv) = attention::backward(dout, reference_inputs, causal).unwrap();
            let tolerance = Tolerance::F32.scaled(4.0);
            assert_close("out", values(&output.out), &out, tolerance);
            assert_close("lse", values(&output.lse), &lse, tolerance);
            assert_close("dq", values(&grads.dq), &dq, tolerance);
            assert_close("dk", values(&grads.dk), &dk, tolerance);
            assert_close("dv", values(&grads.dv), &dv, tolerance);
        });
    }

    #[test]
    fn threads_do_not_change_a_bit(sizes in sizes(), seed in 0..1000u64) {
        let mut random = Random::new(seed);
        let documents = Documents::from_cu_seqlens(random.cu_seqlens(sizes[1], 60)).unwrap();
        let inputs = SparseInputs::new(&mut random, sizes, documents);
        let [one, three] = [1, 3].map(|threads| {
            let (output, grads) = with_threads(threads, || inputs.run());
            [output.out, output.lse, grads.dq, grads.dk, grads.dv]
        });
        one.iter().zip(&three).for_each(|(a, b)| assert_same(a, b));
    }

    #[test]
    fn documents_do_not_see_each_other(sizes in sizes(), seed in 0..1000u64) {
        // The batch with its documents in reverse order gives the same rows, in reverse order of
        // documents.
        let mut random = Random::new(seed);
        let documents = Documents::from_cu_seqlens(random.cu_seqlens(sizes[1], 60)).unwrap();
        let inputs = SparseInputs::new(&mut random, sizes, documents.clone());
        let reversed = |x: &[f32]| -> Vec<f32> {
            let width = x.len() / sizes[1];
            let rows = documents.ranges().collect::<Vec<_>>().into_iter().rev();
            rows.flat_map(|range| x[range.start * width..range.end * width].to_vec()).collect()
        };
        let reversed_tensor =
            |x: &Tensor| Tensor::from_vec(reversed(values(x)), x.shape()).unwrap();
        let cu_seqlens =
            documents.cu_seqlens().iter().rev().map(|offset| sizes[1] - offset).collect();
        let reversed_documents = Documents::from_cu_seqlens(cu_seqlens).unwrap();
        // Block numbers are exact in f32.
        let indices: Vec<f32> =
            inputs.host_indices().as_slice().iter().map(|&block| block as f32).collect();
        let indices = reversed(&indices).iter().map(|&block| block as i32).collect();
        let [heads, size, counts] = [sizes[3], sizes[5], sizes[6]];
        let permuted = SparseInputs {
            q: reversed_tensor(&inputs.q),
            k: reversed_tensor(&inputs.k),
            v: reversed_tensor(&inputs.v),
            dout: reversed_tensor(&inputs.dout),
            block_indices: BlockIndices::from_vec(
                indices, &reversed_documents, heads, size, counts,
            )
            .unwrap(),
            documents: reversed_documents,
            softmax_scale: inputs.softmax_scale,
        };
        let ((output, grads), (permuted_output, permuted_grads)) = (inputs.run(), permuted.run());
        assert_same(&reversed_tensor(&output.out), &permuted_output.out);
        assert_same(&reversed_tensor(&output.lse), &permuted_output.lse);
        assert_same(&reversed_tensor(&grads.dq), &permuted_grads.dq);
        // The chunks of the backward are cut elsewhere, which changes the rounding of a key's sum.
        for (grad, permuted) in [(grads.dk, permuted_grads.dk), (grads.dv, permuted_grads.dv)] {
            let expected = to_f64(&reversed_tensor(&grad));
            assert_close("dk, dv", values(&permuted), &expected, Tolerance::F32);
        }
    }
}
