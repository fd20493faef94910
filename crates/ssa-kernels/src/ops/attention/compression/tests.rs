use ssa_testkit::{Random, assert_gradient};

use super::super::full::tests::{CASES, Case, Inputs};
use super::super::pooling::mean_pool_fwd;
use super::super::reference::Inputs as ReferenceInputs;
use super::*;
use crate::ops::testing::{dot, normal_f64, with_threads};

/// Inputs of a case with pooled keys and values.
fn pooled(case: Case, block_size: usize) -> Inputs {
    let mut inputs = Inputs::new(case);
    for x in [&mut inputs.k, &mut inputs.v] {
        *x = mean_pool_fwd(x, &inputs.documents, block_size).unwrap();
    }
    inputs
}

fn run(inputs: &Inputs, block_size: usize) -> (AttentionOutput, AttentionGrads) {
    let Inputs { q, k, v, dout, documents, softmax_scale } = inputs;
    let output = compression_attention_fwd(q, k, v, documents, block_size, *softmax_scale).unwrap();
    let mut grads = inputs.ones();
    let args = (documents, block_size, *softmax_scale);
    compression_attention_bwd(dout, q, k, v, &output, args.0, args.1, args.2, &mut grads).unwrap();
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
    let (lse, out) = (output.lse.as_slice(), output.out.as_slice());
    let first_seen = 3 * inputs.q.shape()[2];
    assert!(lse[..first_seen].iter().all(|lse| *lse == f32::NEG_INFINITY));
    assert!(lse[first_seen].is_finite());
    assert!(out[..first_seen * inputs.q.last_dim()].iter().all(|out| *out == 0.0));
}

#[test]
fn threads_change_nothing() {
    let inputs = pooled(CASES[6], 3);
    let [one, three] = [1, 3].map(|threads| with_threads(threads, || run(&inputs, 3)));
    assert_eq!(one.0.out, three.0.out);
    assert_eq!([one.1.dq, one.1.dk, one.1.dv], [three.1.dq, three.1.dk, three.1.dv]);
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(5);
    let documents = Documents::from_cu_seqlens(vec![0, 5, 6, 11]).unwrap();
    // 7 blocks of two tokens, 3 query heads on one key/value head of size 2.
    let [q, k, v, dout] = [66, 14, 14, 66].map(|len| normal_f64(&mut random, len));
    fn inputs<'a>(q: &'a [f64], k: &'a [f64], v: &'a [f64]) -> ReferenceInputs<'a> {
        ReferenceInputs { q, k, v, q_heads: 3, kv_heads: 1, head_dim: 2, softmax_scale: 0.7 }
    }
    let (dq, dk, dv) = reference::backward(&dout, &inputs(&q, &k, &v), &documents, 2);
    let loss = |q: &[f64], k: &[f64], v: &[f64]| {
        dot(&reference::forward(&inputs(q, k, v), &documents, 2).0, &dout)
    };
    assert_gradient("dq", &q, &dq, |q| loss(q, &k, &v));
    assert_gradient("dk", &k, &dk, |k| loss(&q, k, &v));
    assert_gradient("dv", &v, &dv, |v| loss(&q, &k, v));
}

#[test]
fn wrong_arguments_are_refused() {
    let (q, pooled) = (Tensor::zeros([2, 3, 4, 2]), Tensor::zeros([4, 2, 2]));
    let documents = Documents::rows(2, 3);
    let forward = |pooled: &Tensor, block_size| {
        compression_attention_fwd(&q, pooled, pooled, &documents, block_size, 1.0)
    };
    assert!(forward(&pooled, 2).is_ok());
    assert!(forward(&pooled, 3).is_err());
    assert!(forward(&pooled, 0).is_err());
    assert!(forward(&Tensor::zeros([4, 3, 2]), 2).is_err());
}
