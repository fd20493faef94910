use super::super::full::full_attention_fwd;
use super::super::full::tests::{CASES, RandomAttention};
use super::*;
use crate::Documents;
use crate::ops::testing::{assert_refused, assert_same, zeros};

fn run(inputs: &RandomAttention, window_size: usize) -> (AttentionOutput, AttentionGrads) {
    let output = window_attention_fwd(&inputs.call(), window_size).unwrap();
    let mut grads = inputs.ones();
    window_attention_bwd(&inputs.dout, &inputs.call(), window_size, &output, &mut grads).unwrap();
    (output, grads)
}

#[test]
fn matches_the_reference() {
    for case in CASES {
        // One token, within a query tile, longer than query and key tiles.
        for window_size in [1, 7, 200] {
            println!("{case:?}, window {window_size}");
            let inputs = RandomAttention::new(case);
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
    let inputs = RandomAttention::new(CASES[2]);
    let call = inputs.call();
    let full = full_attention_fwd(&call).unwrap();
    for window_size in [inputs.documents.total_tokens(), usize::MAX] {
        let window = window_attention_fwd(&call, window_size).unwrap();
        assert_same(&window.out, &full.out);
        assert_same(&window.lse, &full.lse);
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let [q, k] = [zeros([2, 3, 4, 2]), zeros([2, 3, 2, 2])];
    let documents = Documents::rows(2, 3).unwrap();
    let call = AttentionCall { q: &q, k: &k, v: &k, documents: &documents, softmax_scale: 1.0 };
    assert_refused(window_attention_fwd(&call, 0), "window_size");
    assert_refused(window_attention_fwd(&AttentionCall { v: &q, ..call }, 1), "v");
    let output = window_attention_fwd(&call, 1).unwrap();
    let mut grads = AttentionGrads::zeros_like(&q, &k, &k).unwrap();
    let mut backward = |dout: &Tensor, window_size| {
        window_attention_bwd(dout, &call, window_size, &output, &mut grads)
    };
    assert_refused(backward(&q, 0), "window_size");
    assert_refused(backward(&k, 1), "dout");
    backward(&q, 1).unwrap();
}
