use ssa_testkit::{Random, assert_gradient};

use super::super::full::tests::{CASES, Case, RandomAttention};
use super::super::pooling::mean_pool_fwd;
use super::super::reference::AttentionInputs;
use super::*;
use crate::Documents;
use crate::ops::testing::{
    assert_refused, assert_same, dot, normal_f64, values, with_threads, zeros,
};

/// RandomAttention of a case with pooled keys and values.
fn pooled(case: Case, block_size: usize) -> RandomAttention {
    let mut inputs = RandomAttention::new(case);
    for x in [&mut inputs.k, &mut inputs.v] {
        *x = mean_pool_fwd(x, &inputs.documents, block_size).unwrap();
    }
    inputs
}

fn run(inputs: &RandomAttention, block_size: usize) -> (AttentionOutput, AttentionGrads) {
    let output = compression_attention_fwd(&inputs.call(), block_size).unwrap();
    let mut grads = inputs.ones();
    compression_attention_bwd(&inputs.dout, &inputs.call(), block_size, &output, &mut grads)
        .unwrap();
    (output, grads)
}

#[test]
fn matches_the_reference() {
    for case in CASES {
        // Every token a block, partial last blocks, more blocks than a key tile holds, no complete
        // block.
        for block_size in [1, 3, 16, 1000] {
            println!("{case:?}, block size {block_size}");
            let inputs = pooled(case, block_size);
            inputs.check(
                run(&inputs, block_size),
                |inputs, documents| reference::forward(inputs, documents, block_size),
                |dout, inputs, documents| reference::backward(dout, inputs, documents, block_size),
            );
        }
    }
}

#[test]
fn a_token_without_a_complete_block_has_zero_output() {
    let inputs = pooled(CASES[1], 4);
    let (output, _) = run(&inputs, 4);
    let (lse, out) = (values(&output.lse), values(&output.out));
    let first_seen = 3 * inputs.q.shape()[2];
    assert!(lse[..first_seen].iter().all(|lse| *lse == f32::NEG_INFINITY));
    assert!(lse[first_seen].is_finite());
    assert!(out[..first_seen * inputs.q.last_dim()].iter().all(|out| *out == 0.0));
}

#[test]
fn results_do_not_depend_on_threads() {
    let inputs = pooled(CASES[6], 3);
    let [one, three] = [1, 3].map(|threads| with_threads(threads, || run(&inputs, 3)));
    let tensors = |(output, grads): (AttentionOutput, AttentionGrads)| {
        [output.out, output.lse, grads.dq, grads.dk, grads.dv]
    };
    tensors(one).iter().zip(&tensors(three)).for_each(|(a, b)| assert_same(a, b));
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(5);
    let documents = Documents::from_cu_seqlens(vec![0, 5, 6, 11]).unwrap();
    // 7 blocks of two tokens, 3 query heads on one key/value head of size 2.
    let [q, k, v, dout] = [66, 14, 14, 66].map(|len| normal_f64(&mut random, len));
    fn inputs<'a>(q: &'a [f64], k: &'a [f64], v: &'a [f64]) -> AttentionInputs<'a> {
        AttentionInputs { q, k, v, q_heads: 3, kv_heads: 1, head_dim: 2, softmax_scale: 0.7 }
    }
    let (dq, dk, dv) = reference::backward(&dout, &inputs(&q, &k, &v), &documents, 2).unwrap();
    let loss = |q: &[f64], k: &[f64], v: &[f64]| {
        dot(&reference::forward(&inputs(q, k, v), &documents, 2).unwrap().0, &dout)
    };
    assert_gradient("dq", &q, &dq, |q| loss(q, &k, &v));
    assert_gradient("dk", &k, &dk, |k| loss(&q, k, &v));
    assert_gradient("dv", &v, &dv, |v| loss(&q, &k, v));
}

#[test]
fn wrong_arguments_are_refused() {
    let (q, pooled) = (zeros([2, 3, 4, 2]), zeros([4, 2, 2]));
    let documents = Documents::rows(2, 3).unwrap();
    let forward = |pooled: &Tensor, block_size| {
        let call = AttentionCall {
            q: &q,
            k: pooled,
            v: pooled,
            documents: &documents,
            softmax_scale: 1.0,
        };
        compression_attention_fwd(&call, block_size)
    };
    forward(&pooled, 2).unwrap();
    assert_refused(forward(&pooled, 3), "k");
    assert_refused(forward(&pooled, 0), "block_size");
    assert_refused(forward(&zeros([4, 3, 2]), 2), "k");
}
