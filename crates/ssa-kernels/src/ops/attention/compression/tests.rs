use rayon::ThreadPoolBuilder;
use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::super::reference as attention;
use super::*;
use crate::ops::testing::{dot, normal_f64, tensor, to_f64};

/// B, T, HQ, H, D, block_size.
const SHAPES: [[usize; 6]; 7] = [
    [1, 1, 1, 1, 2, 16],
    [1, 1, 3, 1, 2, 1],
    [1, 63, 3, 1, 6, 16],
    [2, 100, 16, 1, 16, 4],
    [1, 100, 8, 2, 64, 8],
    [1, 400, 16, 1, 64, 16],
    [2, 37, 4, 4, 5, 1],
];

/// The tensors of one call.
struct Inputs {
    q: Tensor,
    k_pooled: Tensor,
    v_pooled: Tensor,
    dout: Tensor,
    documents: Documents,
    block_size: usize,
    softmax_scale: f32,
}

impl Inputs {
    fn new(random: &mut Random, sizes: [usize; 6], documents: Documents) -> Self {
        let [batch, tokens, q_heads, kv_heads, head_dim, block_size] = sizes;
        let [q, dout] = [(); 2].map(|()| tensor(random, [batch, tokens, q_heads, head_dim]));
        let blocks = documents.blocks(block_size);
        let [k_pooled, v_pooled] = [(); 2].map(|()| tensor(random, [blocks, kv_heads, head_dim]));
        let softmax_scale = (head_dim as f32).powf(-0.5);
        Self { q, k_pooled, v_pooled, dout, documents, block_size, softmax_scale }
    }

    fn run_onto(&self, start: f32) -> (AttentionOutput, CompressionGrads) {
        let Self { q, k_pooled, v_pooled, dout, documents, block_size, softmax_scale } = self;
        let output =
            compression_attention_fwd(q, k_pooled, v_pooled, documents, *block_size, *softmax_scale).unwrap();
        let mut grads = CompressionGrads::zeros_like(q, k_pooled, v_pooled);
        for grad in [&mut grads.dq, &mut grads.dk_pooled, &mut grads.dv_pooled] {
            grad.fill(start);
        }
        compression_attention_bwd(
            dout,
            q,
            k_pooled,
            v_pooled,
            &output,
            documents,
            *block_size,
            *softmax_scale,
            &mut grads,
        )
        .unwrap();
        (output, grads)
    }
}

#[test]
fn matches_the_reference() {
    for sizes in SHAPES {
        let mut random = Random::new(1);
        let tokens = sizes[0] * sizes[1];
        let packed = Documents::from_cu_seqlens(random.cu_seqlens(tokens, 50)).unwrap();
        let ones = Documents::from_cu_seqlens((0..=tokens).collect()).unwrap();
        for documents in [Documents::rows(sizes[0], sizes[1]), packed, ones] {
            let inputs = Inputs::new(&mut random, sizes, documents);
            // The gradients are added to ones.
            let (output, grads) = inputs.run_onto(1.0);
            let [q, k, v, dout] = [&inputs.q, &inputs.k_pooled, &inputs.v_pooled, &inputs.dout].map(to_f64);
            let reference_inputs = attention::Inputs {
                q: &q,
                k: &k,
                v: &v,
                q_heads: sizes[2],
                kv_heads: sizes[3],
                head_dim: sizes[4],
                softmax_scale: f64::from(inputs.softmax_scale),
            };
            let (documents, block_size) = (&inputs.documents, inputs.block_size);
            let (out, lse) = reference::forward(&reference_inputs, documents, block_size);
            let (dq, dk, dv) = reference::backward(&dout, &reference_inputs, documents, block_size);
            assert_close("out", output.out.as_slice(), &out, Tolerance::F32);
            // Infinite where nothing is visible, which assert_close does not compare.
            for (lse, expected) in output.lse.as_slice().iter().zip(&lse) {
                let equal = f64::from(*lse) == *expected;
                assert!(equal || (f64::from(*lse) - expected).abs() < 2e-5 * (1.0 + expected.abs()));
            }
            for (name, actual, expected) in
                [("dq", grads.dq, dq), ("dk_pooled", grads.dk_pooled, dk), ("dv_pooled", grads.dv_pooled, dv)]
            {
                let expected: Vec<f64> = expected.iter().map(|value| value + 1.0).collect();
                let name = format!("{name} of {sizes:?}");
                // A mean's gradient sums over all later queries, terms of order one each.
                assert_close(&name, actual.as_slice(), &expected, Tolerance::F32.scaled(8.0));
            }
        }
    }
}

#[test]
fn tokens_before_the_first_complete_block_see_nothing() {
    let documents = Documents::from_cu_seqlens(vec![0, 6, 9]).unwrap();
    let inputs = Inputs::new(&mut Random::new(2), [1, 9, 1, 1, 2, 4], documents);
    let (output, _) = inputs.run_onto(0.0);
    for token in [0, 1, 2, 6, 7, 8] {
        assert_eq!(output.lse.as_slice()[token], f32::NEG_INFINITY);
        assert_eq!(output.out.as_slice()[token * 2..token * 2 + 2], [0.0, 0.0]);
    }
    // The last token of the first block sees that block alone.
    assert_eq!(output.out.as_slice()[6..8], inputs.v_pooled.as_slice()[..2]);
}

#[test]
fn threads_do_not_change_a_bit() {
    let mut random = Random::new(3);
    let documents = Documents::from_cu_seqlens(random.cu_seqlens(500, 200)).unwrap();
    let inputs = Inputs::new(&mut random, [1, 500, 8, 2, 16, 4], documents);
    let [one, three] = [1, 3].map(|threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| inputs.run_onto(0.5))
    });
    assert_eq!(one.0.out, three.0.out);
    assert_eq!(one.0.lse, three.0.lse);
    assert_eq!(one.1.dq, three.1.dq);
    assert_eq!(one.1.dk_pooled, three.1.dk_pooled);
    assert_eq!(one.1.dv_pooled, three.1.dv_pooled);
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(4);
    let documents = Documents::from_cu_seqlens(vec![0, 7, 8]).unwrap();
    let [q, dout] = [(); 2].map(|()| normal_f64(&mut random, 8 * 2 * 2));
    let [k, v] = [(); 2].map(|()| normal_f64(&mut random, 5 * 2));
    let inputs =
        attention::Inputs { q: &q, k: &k, v: &v, q_heads: 2, kv_heads: 1, head_dim: 2, softmax_scale: 0.7 };
    let loss = |inputs: attention::Inputs<'_>| dot(&reference::forward(&inputs, &documents, 2).0, &dout);
    let (dq, dk, dv) = reference::backward(&dout, &inputs, &documents, 2);
    assert_gradient("dq", &q, &dq, |q| loss(attention::Inputs { q, ..inputs }));
    assert_gradient("dk_pooled", &k, &dk, |k| loss(attention::Inputs { k, ..inputs }));
    assert_gradient("dv_pooled", &v, &dv, |v| loss(attention::Inputs { v, ..inputs }));
}

#[test]
fn no_tokens_give_an_empty_result() {
    let inputs = Inputs::new(&mut Random::new(5), [1, 0, 2, 1, 4, 16], Documents::rows(1, 0));
    let (output, grads) = inputs.run_onto(0.0);
    assert!(output.out.is_empty() && grads.dk_pooled.is_empty());
}

#[test]
fn wrong_arguments_are_refused() {
    let documents = Documents::rows(1, 4);
    let [q, means, more] = [Tensor::zeros([1, 4, 2, 2]), Tensor::zeros([2, 1, 2]), Tensor::zeros([3, 1, 2])];
    let fewer_tokens = Documents::rows(1, 3);
    let forward = |k, v, documents, size| compression_attention_fwd(&q, k, v, documents, size, 1.0);
    let output = forward(&means, &means, &documents, 2).unwrap();
    assert!(forward(&means, &more, &documents, 2).is_err());
    assert!(forward(&means, &means, &documents, 0).is_err());
    assert!(forward(&means, &means, &documents, 4).is_err());
    assert!(forward(&means, &means, &fewer_tokens, 2).is_err());

    let backward = |dout, mut grads| {
        compression_attention_bwd(dout, &q, &means, &means, &output, &documents, 2, 1.0, &mut grads)
    };
    assert!(backward(&q, CompressionGrads::zeros_like(&q, &means, &means)).is_ok());
    assert!(backward(&means, CompressionGrads::zeros_like(&q, &means, &means)).is_err());
    assert!(backward(&q, CompressionGrads::zeros_like(&q, &q, &means)).is_err());
    assert!(backward(&q, CompressionGrads::zeros_like(&q, &means, &q)).is_err());
}
