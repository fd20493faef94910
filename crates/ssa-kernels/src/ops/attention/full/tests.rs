use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::*;
use crate::ops::testing::{dot, normal_f64, tensor, to_f64};

/// Sizes of one case; the documents are cut at random, many of them one token long.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops::attention) struct Case {
    pub(in crate::ops::attention) batch: usize,
    pub(in crate::ops::attention) tokens: usize,
    pub(in crate::ops::attention) kv_heads: usize,
    pub(in crate::ops::attention) group: usize,
    pub(in crate::ops::attention) head_dim: usize,
    /// 0: one document per row.
    pub(in crate::ops::attention) longest_document: usize,
}

const fn case(
    [batch, tokens]: [usize; 2],
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    longest_document: usize,
) -> Case {
    Case { batch, tokens, kv_heads, group, head_dim, longest_document }
}

/// Odd sizes; tiles hold up to 64 tokens and 256 keys, so the long ones cross all borders.
pub(in crate::ops::attention) const CASES: [Case; 9] = [
    case([1, 1], 1, 1, 2, 0),
    case([1, 63], 2, 3, 6, 0),
    case([1, 100], 1, 16, 16, 40),
    case([3, 21], 2, 1, 64, 0),
    case([2, 100], 3, 3, 16, 4),
    case([1, 700], 1, 1, 16, 0),
    case([1, 600], 1, 3, 6, 400),
    case([1, 300], 2, 16, 64, 0),
    case([1, 3], 1, 300, 2, 0),
];

/// Random inputs of a case.
pub(in crate::ops::attention) struct Inputs {
    pub(in crate::ops::attention) q: Tensor,
    pub(in crate::ops::attention) k: Tensor,
    pub(in crate::ops::attention) v: Tensor,
    pub(in crate::ops::attention) dout: Tensor,
    pub(in crate::ops::attention) documents: Documents,
    pub(in crate::ops::attention) softmax_scale: f32,
}

impl Inputs {
    pub(in crate::ops::attention) fn new(case: Case) -> Self {
        let Case { batch, tokens, kv_heads, group, head_dim, longest_document } = case;
        let mut random = Random::new(7);
        let [q, dout] = [(); 2].map(|()| tensor(&mut random, [batch, tokens, kv_heads * group, head_dim]));
        let [k, v] = [(); 2].map(|()| tensor(&mut random, [batch, tokens, kv_heads, head_dim]));
        let documents = if longest_document == 0 {
            Documents::rows(batch, tokens)
        } else {
            Documents::from_cu_seqlens(random.cu_seqlens(batch * tokens, longest_document)).unwrap()
        };
        // Twice the usual scale: peaked distributions, so that maxima move from tile to tile.
        Self { q, k, v, dout, documents, softmax_scale: 2.0 / (head_dim as f32).sqrt() }
    }

    /// Checks an output and its gradients, which were added to ones.
    pub(in crate::ops::attention) fn check(
        &self,
        window_size: usize,
        output: &AttentionOutput,
        grads: &AttentionGrads,
    ) {
        let [q, k, v, dout] = [&self.q, &self.k, &self.v, &self.dout].map(to_f64);
        let problem = reference::Problem {
            q: &q,
            k: &k,
            v: &v,
            q_heads: self.q.shape()[2],
            kv_heads: self.k.shape()[2],
            head_dim: self.q.last_dim(),
            documents: &self.documents,
            window_size,
            softmax_scale: f64::from(self.softmax_scale),
        };
        let (out, lse) = reference::forward(&problem);
        assert_close("out", output.out.as_slice(), &out, Tolerance::F32);
        assert_close("lse", output.lse.as_slice(), &lse, Tolerance::F32);
        let [dq, dk, dv] = reference::backward(&problem, &dout).map(|gradient| {
            let plus_one = |value: f64| value + 1.0;
            gradient.into_iter().map(plus_one).collect::<Vec<_>>()
        });
        // Gradients of keys and values sum over every query that sees them.
        assert_close("dq", grads.dq.as_slice(), &dq, Tolerance::F32.scaled(2.0));
        assert_close("dk", grads.dk.as_slice(), &dk, Tolerance::F32.scaled(5.0));
        assert_close("dv", grads.dv.as_slice(), &dv, Tolerance::F32.scaled(5.0));
    }

    /// Gradient buffers full of ones: backwards add to what is there.
    pub(in crate::ops::attention) fn ones(&self) -> AttentionGrads {
        let mut grads = AttentionGrads::zeros_like(&self.q, &self.k, &self.v);
        for grad in [&mut grads.dq, &mut grads.dk, &mut grads.dv] {
            grad.fill(1.0);
        }
        grads
    }
}

fn run(inputs: &Inputs) -> (AttentionOutput, AttentionGrads) {
    let Inputs { q, k, v, dout, documents, softmax_scale } = inputs;
    let output = full_attention_fwd(q, k, v, documents, *softmax_scale).unwrap();
    let mut grads = inputs.ones();
    full_attention_bwd(dout, q, k, v, &output, documents, *softmax_scale, &mut grads).unwrap();
    (output, grads)
}

#[test]
fn matches_the_reference() {
    for case in CASES {
        println!("{case:?}");
        let inputs = Inputs::new(case);
        let (output, grads) = run(&inputs);
        inputs.check(usize::MAX, &output, &grads);
    }
}

#[test]
fn threads_do_not_matter() {
    let inputs = Inputs::new(case([1, 700], 1, 3, 16, 600));
    let results = [1, 2, 5].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (output, grads) = pool.install(|| run(&inputs));
        [output.out, output.lse, grads.dq, grads.dk, grads.dv]
    });
    assert!(results[0] == results[1] && results[0] == results[2]);
}

#[test]
fn huge_scores_stay_finite() {
    let mut inputs = Inputs::new(case([1, 300], 1, 3, 6, 0));
    inputs.softmax_scale = 1e4;
    let (output, grads) = run(&inputs);
    for tensor in [output.out, output.lse, grads.dq, grads.dk, grads.dv] {
        assert!(tensor.as_slice().iter().all(|x| x.is_finite()));
    }
}

#[test]
fn no_tokens_give_nothing() {
    let inputs = Inputs::new(case([0, 5], 1, 3, 6, 0));
    let (output, _) = run(&inputs);
    assert_eq!(output.out.shape(), [0, 5, 3, 6]);
    assert_eq!(output.lse.shape(), [0, 5, 3]);
}

#[test]
fn reference_passes_gradcheck() {
    let documents = Documents::from_cu_seqlens(vec![0, 1, 6, 9]).unwrap();
    let mut random = Random::new(3);
    let [q, dout] = [(); 2].map(|()| normal_f64(&mut random, 9 * 4 * 2));
    let [k, v] = [(); 2].map(|()| normal_f64(&mut random, 9 * 2 * 2));
    for window_size in [usize::MAX, 3] {
        let problem = reference::Problem {
            q: &q,
            k: &k,
            v: &v,
            q_heads: 4,
            kv_heads: 2,
            head_dim: 2,
            documents: &documents,
            window_size,
            softmax_scale: 0.7,
        };
        let [dq, dk, dv] = reference::backward(&problem, &dout);
        let loss = |problem: reference::Problem<'_>| dot(&reference::forward(&problem).0, &dout);
        assert_gradient("dq", &q, &dq, |q| loss(reference::Problem { q, ..problem }));
        assert_gradient("dk", &k, &dk, |k| loss(reference::Problem { k, ..problem }));
        assert_gradient("dv", &v, &dv, |v| loss(reference::Problem { v, ..problem }));
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let [q, k] = [Tensor::zeros([2, 3, 4, 2]), Tensor::zeros([2, 3, 2, 2])];
    let documents = Documents::rows(2, 3);
    let forward = |q: &Tensor, k: &Tensor, v: &Tensor, documents: &Documents| {
        full_attention_fwd(q, k, v, documents, 1.0)
    };
    assert!(forward(&q, &k, &Tensor::zeros([2, 3, 1, 2]), &documents).is_err());
    assert!(forward(&Tensor::zeros([2, 3, 3, 2]), &k, &k, &documents).is_err());
    assert!(forward(&Tensor::zeros([2, 3, 8]), &k, &k, &documents).is_err());
    assert!(forward(&q, &k, &k, &Documents::rows(2, 4)).is_err());
    let empty_heads = Tensor::zeros([2, 3, 2, 0]);
    assert!(forward(&empty_heads, &empty_heads, &empty_heads, &documents).is_err());

    let output = forward(&q, &k, &k, &documents).unwrap();
    let mut grads = AttentionGrads::zeros_like(&q, &k, &k);
    let backward = |dout: &Tensor, output: &AttentionOutput, grads: &mut AttentionGrads| {
        full_attention_bwd(dout, &q, &k, &k, output, &documents, 1.0, grads)
    };
    assert!(backward(&k, &output, &mut grads).is_err());
    let swapped = AttentionOutput { out: output.lse.clone(), lse: output.out.clone() };
    assert!(backward(&q, &swapped, &mut grads).is_err());
    assert!(backward(&q, &output, &mut AttentionGrads::zeros_like(&k, &k, &k)).is_err());
    assert!(backward(&q, &output, &mut AttentionGrads::zeros_like(&q, &q, &k)).is_err());
    assert!(backward(&q, &output, &mut grads).is_ok());
}
