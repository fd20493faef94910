use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::*;
use crate::ops::testing::{
    assert_refused, dot, normal_f64, ones_like, tensor, to_f64, values, zeros,
};

/// B, T, H, D, block_size.
const SHAPES: [[usize; 5]; 5] =
    [[1, 1, 1, 2, 16], [2, 63, 3, 6, 16], [1, 100, 1, 64, 16], [1, 9, 2, 3, 1], [2, 5, 1, 4, 9]];

#[test]
fn matches_the_reference() {
    for [batch, tokens, heads, head_dim, block_size] in SHAPES {
        let mut random = Random::new(1);
        let packed = Documents::from_cu_seqlens(random.cu_seqlens(batch * tokens, 20)).unwrap();
        for documents in [Documents::rows(batch, tokens).unwrap(), packed] {
            let width = heads * head_dim;
            let x = tensor(&mut random, [batch, tokens, heads, head_dim]);
            let pooled = mean_pool_fwd(&x, &documents, block_size).unwrap();
            assert_eq!(pooled.shape(), [documents.blocks(block_size), heads, head_dim]);
            let expected = reference::forward(&to_f64(&x), &documents, block_size, width).unwrap();
            assert_close("pooled", values(&pooled), &expected, Tolerance::F32);

            let dpooled = tensor(&mut random, [documents.blocks(block_size), heads, head_dim]);
            let mut dx = ones_like(&x);
            mean_pool_bwd(&dpooled, &documents, block_size, &mut dx).unwrap();
            let expected =
                reference::backward(&to_f64(&dpooled), &documents, block_size, width).unwrap();
            let expected: Vec<f64> = expected.iter().map(|value| value + 1.0).collect();
            assert_close("dx, added to ones", values(&dx), &expected, Tolerance::F32);
        }
    }
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(2);
    let documents = Documents::from_cu_seqlens(vec![0, 5, 6]).unwrap();
    let (x, dpooled) = (normal_f64(&mut random, 6 * 2), normal_f64(&mut random, 4 * 2));
    let dx = reference::backward(&dpooled, &documents, 2, 2).unwrap();
    assert_gradient("dx", &x, &dx, |x| {
        dot(&reference::forward(x, &documents, 2, 2).unwrap(), &dpooled)
    });
}

#[test]
fn wrong_arguments_are_refused() {
    let x = zeros([1, 4, 1, 2]);
    let documents = Documents::rows(1, 4).unwrap();
    assert_refused(mean_pool_fwd(&x, &documents, 0), "block_size");
    assert_refused(mean_pool_fwd(&x, &Documents::rows(1, 3).unwrap(), 2), "documents");
    assert_refused(mean_pool_fwd(&zeros([4, 1, 2]), &documents, 2), "x");
    let mut dx = Tensor::zeros_like(&x).unwrap();
    assert_refused(mean_pool_bwd(&zeros([3, 1, 2]), &documents, 2, &mut dx), "dpooled");
}
