use super::super::full::full_attention_fwd;
use super::super::full::tests::{CASES, Inputs};
use super::*;

fn run(inputs: &Inputs, window_size: usize) -> (AttentionOutput, AttentionGrads) {
    let Inputs { q, k, v, dout, documents, softmax_scale } = inputs;
    let output = window_attention_fwd(q, k, v, documents, window_size, *softmax_scale).unwrap();
    let mut grads = inputs.ones();
    window_attention_bwd(
        dout,
        q,
        k,
        v,
        &output,
        documents,
        window_size,
        *softmax_scale,
        &mut grads,
    )
    .unwrap();
    (output, grads)
}

#[test]
fn matches_the_reference() {
    for case in CASES {
        // One token, within a query tile, longer than query and key tiles.
        for window_size in [1, 7, 200] {
            println!("{case:?}, window {window_size}");
            let inputs = Inputs::new(case);
            let (output, grads) = run(&inputs, window_size);
            inputs.check(
                (output, grads),
                |inputs, documents| reference::forward(inputs, documents, window_size),
                |dout, inputs, documents| reference::backward(dout, inputs, documents, window_size),
            );
        }
    }
}

#[test]
fn a_window_over_everything_is_full_attention() {
    let inputs = Inputs::new(CASES[2]);
    let Inputs { q, k, v, documents, softmax_scale, .. } = &inputs;
    let full = full_attention_fwd(q, k, v, documents, *softmax_scale).unwrap();
    for window_size in [documents.total_tokens(), usize::MAX] {
        let window = window_attention_fwd(q, k, v, documents, window_size, *softmax_scale).unwrap();
        assert_eq!(window.out, full.out);
        assert_eq!(window.lse, full.lse);
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let [q, k] = [Tensor::zeros([2, 3, 4, 2]), Tensor::zeros([2, 3, 2, 2])];
    let documents = Documents::rows(2, 3);
    assert!(window_attention_fwd(&q, &k, &k, &documents, 0, 1.0).is_err());
    assert!(window_attention_fwd(&q, &k, &q, &documents, 1, 1.0).is_err());
    let output = window_attention_fwd(&q, &k, &k, &documents, 1, 1.0).unwrap();
    let mut grads = AttentionGrads::zeros_like(&q, &k, &k);
    let mut backward = |dout: &Tensor, window_size| {
        window_attention_bwd(dout, &q, &k, &k, &output, &documents, window_size, 1.0, &mut grads)
    };
    assert!(backward(&q, 0).is_err());
    assert!(backward(&k, 1).is_err());
    assert!(backward(&q, 1).is_ok());
}
