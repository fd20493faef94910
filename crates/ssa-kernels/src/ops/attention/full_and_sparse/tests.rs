use super::super::full::tests::{CASES, Inputs};
use super::*;

/// Without a GPU it is the two ops.
#[test]
fn it_is_the_two_ops() {
    let Inputs { q, k, v, dout, documents, softmax_scale } = Inputs::new(CASES[4]);
    let kv_heads = k.shape()[2];
    let blocks = BlockIndices::all(&documents, kv_heads, 2);
    let both = full_and_sparse_attention_fwd(&q, &k, &v, &blocks, &documents, softmax_scale).unwrap();
    let full = full_attention_fwd(&q, &k, &v, &documents, softmax_scale).unwrap();
    assert_eq!(both.full.out, full.out);

    let mut grads = AttentionGrads::zeros_like(&q, &k, &v);
    let douts = FullAndSparse { full: &dout, sparse: &dout };
    let outputs = FullAndSparse { full: &both.full, sparse: &both.sparse };
    full_and_sparse_attention_bwd(douts, &q, &k, &v, outputs, &blocks, &documents, softmax_scale, &mut grads)
        .unwrap();
    let mut expected = AttentionGrads::zeros_like(&q, &k, &v);
    full_attention_bwd(&dout, &q, &k, &v, &both.full, &documents, softmax_scale, &mut expected).unwrap();
    sparse_attention_bwd(&dout, &q, &k, &v, &both.sparse, &blocks, &documents, softmax_scale, &mut expected)
        .unwrap();
    assert_eq!([grads.dq, grads.dk, grads.dv], [expected.dq, expected.dk, expected.dv]);

    let other = Documents::rows(1, 1);
    let blocks = BlockIndices::all(&other, kv_heads, 2);
    assert!(full_and_sparse_attention_fwd(&q, &k, &v, &blocks, &documents, softmax_scale).is_err());
}
