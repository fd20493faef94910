use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::*;
use crate::ops::testing::{
    assert_refused, assert_same, dot, normal_f64, tensor, to_f64, values, with_threads, zeros,
};

/// B, T, V, hidden.
const SHAPES: [(usize, usize, usize, usize); 4] =
    [(1, 1, 1, 1), (2, 63, 257, 17), (1, 100, 5, 64), (3, 7, 2, 130)];

#[test]
fn matches_the_reference() {
    for (batch, tokens, vocab, hidden) in SHAPES {
        let mut random = Random::new(1);
        let ids = random.below(vocab as u32, batch * tokens);
        let weight = tensor(&mut random, [vocab, hidden]);
        let dout = tensor(&mut random, [batch, tokens, hidden]);

        let out = embedding_fwd(&ids, &weight, [batch, tokens]).unwrap();
        let mut dweight = zeros([vocab, hidden]);
        embedding_bwd(&dout, &ids, &mut dweight).unwrap();

        assert_eq!(out.shape(), [batch, tokens, hidden]);
        let expected = reference::forward(&ids, &to_f64(&weight), hidden).unwrap();
        assert_close("out", values(&out), &expected, Tolerance { atol: 0.0, rtol: 0.0 });
        let expected = reference::backward(&to_f64(&dout), &ids, vocab, hidden).unwrap();
        assert_close("dweight", values(&dweight), &expected, Tolerance::F32);
    }
}

#[test]
fn gradients_are_added() {
    let dout = Tensor::from_vec(vec![1.0, 2.0, 3.0], [1, 3, 1]).unwrap();
    let mut dweight = Tensor::from_vec(vec![10.0; 4], [4, 1]).unwrap();
    embedding_bwd(&dout, &[2, 0, 2], &mut dweight).unwrap();
    assert_eq!(values(&dweight), [12.0, 10.0, 14.0, 10.0]);
}

#[test]
fn gradients_do_not_depend_on_threads() {
    let mut random = Random::new(2);
    let ids = random.below(7, 1000);
    let dout = tensor(&mut random, [2, 500, 33]);
    let run = |threads| {
        let mut dweight = zeros([7, 33]);
        with_threads(threads, || embedding_bwd(&dout, &ids, &mut dweight).unwrap());
        dweight
    };
    assert_same(&run(1), &run(5));
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(3);
    let [weight, dout] = [8, 12].map(|len| normal_f64(&mut random, len));
    let ids = [3, 0, 3, 1, 1, 3];
    let dweight = reference::backward(&dout, &ids, 4, 2).unwrap();
    assert_gradient("dweight", &weight, &dweight, |weight| {
        dot(&reference::forward(&ids, weight, 2).unwrap(), &dout)
    });
}

#[test]
fn no_tokens_give_an_empty_result() {
    assert!(embedding_fwd(&[], &zeros([3, 2]), [0, 5]).unwrap().is_empty());
    embedding_bwd(&zeros([0, 5, 2]), &[], &mut zeros([3, 2])).unwrap();
}

#[test]
fn wrong_arguments_are_refused() {
    let weight = zeros([3, 2]);
    assert_refused(embedding_fwd(&[0; 4], &zeros([3]), [2, 2]), "weight");
    assert_refused(embedding_fwd(&[0; 4], &zeros([3, 0]), [2, 2]), "weight");
    assert_refused(embedding_fwd(&[0; 3], &weight, [2, 2]), "ids");
    assert_refused(embedding_fwd(&[0; 3], &weight, [usize::MAX, 2]), "ids");
    let error = embedding_fwd(&[0, 1, 3, 0], &weight, [2, 2]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "embedding_fwd: `ids` is 3 at position 2, expected ids below the vocabulary size 3"
    );
    let mut dweight = zeros([3, 2]);
    assert_refused(embedding_bwd(&zeros([1, 2, 2]), &[0], &mut dweight), "ids");
    assert_refused(embedding_bwd(&zeros([1, 1, 3]), &[0], &mut dweight), "dweight");
    assert_refused(embedding_bwd(&zeros([1, 1, 2]), &[3], &mut dweight), "ids");
}
