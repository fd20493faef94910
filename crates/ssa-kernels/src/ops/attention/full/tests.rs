use ssa_testkit::{Golden, Random, Tolerance, assert_close, assert_gradient, golden_dir};

use super::super::reference::AttentionInputs;
use super::*;
use crate::ops::testing::{
    assert_refused, assert_same, dot, normal_f64, ones_like, tensor, to_f64, values, with_threads,
    zeros,
};
use crate::{Documents, Result};

/// Sizes of one case; the documents are cut at random, many of them one token long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) batch: usize,
    pub(crate) tokens: usize,
    pub(crate) kv_heads: usize,
    pub(crate) group: usize,
    pub(crate) head_dim: usize,
    /// 0: one document per row.
    pub(crate) longest_document: usize,
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

/// Odd sizes; tiles hold up to 64 tokens and 256 keys, so the long ones span several tiles.
pub(crate) const CASES: [Case; 9] = [
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

/// Gradients of q, k and v.
type InputGradients = (Vec<f64>, Vec<f64>, Vec<f64>);

/// Random inputs of a case.
pub(crate) struct RandomAttention {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
    pub(crate) dout: Tensor,
    pub(crate) documents: Documents,
    pub(crate) softmax_scale: f32,
}

impl RandomAttention {
    pub(crate) fn new(case: Case) -> Self {
        let Case { batch, tokens, kv_heads, group, head_dim, longest_document } = case;
        let mut random = Random::new(7);
        let [q, dout] =
            [(); 2].map(|()| tensor(&mut random, [batch, tokens, kv_heads * group, head_dim]));
        let [k, v] = [(); 2].map(|()| tensor(&mut random, [batch, tokens, kv_heads, head_dim]));
        let documents = if longest_document == 0 {
            Documents::rows(batch, tokens).unwrap()
        } else {
            Documents::from_cu_seqlens(random.cu_seqlens(batch * tokens, longest_document)).unwrap()
        };
        // Twice the usual scale gives peaked distributions, whose maxima differ between tiles.
        Self { q, k, v, dout, documents, softmax_scale: 2.0 / (head_dim as f32).sqrt() }
    }

    /// The call of an op on these inputs.
    pub(crate) fn call(&self) -> AttentionCall<'_> {
        let Self { q, k, v, documents, softmax_scale, .. } = self;
        AttentionCall { q, k, v, documents, softmax_scale: *softmax_scale }
    }

    /// Checks an output, and gradients that were added to ones, against the references of a method.
    pub(crate) fn check(
        &self,
        (output, grads): (AttentionOutput, AttentionGrads),
        forward: impl Fn(&AttentionInputs<'_>, &Documents) -> Result<(Vec<f64>, Vec<f64>)>,
        backward: impl Fn(&[f64], &AttentionInputs<'_>, &Documents) -> Result<InputGradients>,
    ) {
        let [q, k, v, dout] = [&self.q, &self.k, &self.v, &self.dout].map(to_f64);
        let inputs = AttentionInputs {
            q: &q,
            k: &k,
            v: &v,
            q_heads: self.q.shape()[2],
            kv_heads: self.k.shape()[self.k.shape().len() - 2],
            head_dim: self.q.last_dim(),
            softmax_scale: f64::from(self.softmax_scale),
        };
        let (out, lse) = forward(&inputs, &self.documents).unwrap();
        assert_close("out", values(&output.out), &out, Tolerance::F32);
        assert_close("lse", values(&output.lse), &lse, Tolerance::F32);
        let (dq, dk, dv) = backward(&dout, &inputs, &self.documents).unwrap();
        let [dq, dk, dv] =
            [dq, dk, dv].map(|gradient| gradient.iter().map(|x| x + 1.0).collect::<Vec<_>>());
        // Gradients of keys and values sum over every query that sees them.
        assert_close("dq", values(&grads.dq), &dq, Tolerance::F32.scaled(2.0));
        assert_close("dk", values(&grads.dk), &dk, Tolerance::F32.scaled(5.0));
        assert_close("dv", values(&grads.dv), &dv, Tolerance::F32.scaled(5.0));
    }

    /// Gradient buffers full of ones: backwards add to what is there.
    pub(crate) fn ones(&self) -> AttentionGrads {
        let [dq, dk, dv] = [&self.q, &self.k, &self.v].map(ones_like);
        AttentionGrads { dq, dk, dv }
    }
}

fn run(inputs: &RandomAttention) -> (AttentionOutput, AttentionGrads) {
    let output = full_attention_fwd(&inputs.call()).unwrap();
    let mut grads = inputs.ones();
    full_attention_bwd(&inputs.dout, &inputs.call(), &output, &mut grads).unwrap();
    (output, grads)
}

#[test]
fn matches_the_reference() {
    for case in CASES {
        println!("{case:?}");
        let inputs = RandomAttention::new(case);
        inputs.check(run(&inputs), reference::forward, reference::backward);
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let inputs = RandomAttention::new(case([1, 700], 1, 3, 16, 600));
    let results = [1, 2, 5].map(|threads| {
        let (output, grads) = with_threads(threads, || run(&inputs));
        [output.out, output.lse, grads.dq, grads.dk, grads.dv]
    });
    for other in &results[1..] {
        results[0].iter().zip(other).for_each(|(a, b)| assert_same(a, b));
    }
}

#[test]
fn huge_scores_stay_finite() {
    let mut inputs = RandomAttention::new(case([1, 300], 1, 3, 6, 0));
    inputs.softmax_scale = 1e4;
    let (output, grads) = run(&inputs);
    for tensor in [output.out, output.lse, grads.dq, grads.dk, grads.dv] {
        assert!(values(&tensor).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn no_tokens_give_nothing() {
    let inputs = RandomAttention::new(case([0, 5], 1, 3, 6, 0));
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
    let inputs = AttentionInputs {
        q: &q,
        k: &k,
        v: &v,
        q_heads: 4,
        kv_heads: 2,
        head_dim: 2,
        softmax_scale: 0.7,
    };
    let (dq, dk, dv) = reference::backward(&dout, &inputs, &documents).unwrap();
    let loss = |inputs: AttentionInputs<'_>| {
        dot(&reference::forward(&inputs, &documents).unwrap().0, &dout)
    };
    assert_gradient("dq", &q, &dq, |q| loss(AttentionInputs { q, ..inputs }));
    assert_gradient("dk", &k, &dk, |k| loss(AttentionInputs { k, ..inputs }));
    assert_gradient("dv", &v, &dv, |v| loss(AttentionInputs { v, ..inputs }));
}

#[test]
fn wrong_shapes_are_refused() {
    let [q, k] = [zeros([2, 3, 4, 2]), zeros([2, 3, 2, 2])];
    let documents = Documents::rows(2, 3).unwrap();
    let call = AttentionCall { q: &q, k: &k, v: &k, documents: &documents, softmax_scale: 1.0 };
    let forward = |call: AttentionCall<'_>| full_attention_fwd(&call);
    assert_refused(forward(AttentionCall { v: &zeros([2, 3, 1, 2]), ..call }), "v");
    assert_refused(forward(AttentionCall { q: &zeros([2, 3, 3, 2]), ..call }), "k");
    assert_refused(forward(AttentionCall { q: &zeros([2, 3, 8]), ..call }), "q");
    let other = Documents::rows(2, 4).unwrap();
    assert_refused(forward(AttentionCall { documents: &other, ..call }), "documents");
    let empty = zeros([2, 3, 2, 0]);
    assert_refused(forward(AttentionCall { q: &empty, k: &empty, v: &empty, ..call }), "q");

    let output = full_attention_fwd(&call).unwrap();
    let backward = |dout: &Tensor, output: &AttentionOutput, grads: [&Tensor; 3]| {
        let mut grads = AttentionGrads::zeros_like(grads[0], grads[1], grads[2]).unwrap();
        full_attention_bwd(dout, &call, output, &mut grads)
    };
    backward(&q, &output, [&q, &k, &k]).unwrap();
    assert_refused(backward(&k, &output, [&q, &k, &k]), "dout");
    let swapped = AttentionOutput {
        out: output.lse.try_clone().unwrap(),
        lse: output.out.try_clone().unwrap(),
    };
    assert_refused(backward(&q, &swapped, [&q, &k, &k]), "output.out");
    assert_refused(backward(&q, &output, [&k, &k, &k]), "grads.dq");
    assert_refused(backward(&q, &output, [&q, &q, &k]), "grads.dk");
    assert_refused(backward(&q, &output, [&q, &k, &q]), "grads.dv");
}

#[test]
fn matches_the_released_code() {
    let folder = golden_dir().join("ops");
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut cases = 0;
    for path in files.map(|file| file.unwrap().path()) {
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            println!("{}", path.display());
            check_golden(&Golden::read(&path));
            cases += 1;
        }
    }
    assert!(cases > 0, "no golden cases in {}", folder.display());
}

/// Compares gated full attention, forward and backward, with the released code's.
fn check_golden(golden: &Golden) {
    let tensor = |name: &str| {
        let golden = golden.tensor(name);
        Tensor::from_vec(golden.values.clone(), golden.shape.clone()).unwrap()
    };
    let [q, k, v, gate, dout] = ["q", "k", "v", "gate", "dout"].map(tensor);
    let head_dim = q.last_dim();
    let documents = Documents::rows(q.shape()[0], q.shape()[1]).unwrap();
    let softmax_scale = (head_dim as f32).powf(-0.5);
    let gated = |x: &Tensor| {
        let heads = values(x).chunks(head_dim).zip(values(&gate));
        heads.flat_map(|(head, gate)| head.iter().map(move |x| x * gate)).collect::<Vec<_>>()
    };

    let call = AttentionCall { q: &q, k: &k, v: &v, documents: &documents, softmax_scale };
    let output = full_attention_fwd(&call).unwrap();
    let heads = values(&dout).chunks(head_dim).zip(values(&output.out).chunks(head_dim));
    let dgate: Vec<f32> =
        heads.map(|(dout, out)| dout.iter().zip(out).map(|(a, b)| a * b).sum()).collect();
    let dout = Tensor::from_vec(gated(&dout), q.shape()).unwrap();
    let mut grads = AttentionGrads::zeros_like(&q, &k, &v).unwrap();
    full_attention_bwd(&dout, &call, &output, &mut grads).unwrap();

    let compare = |name: &str, actual: &[f32]| {
        assert_close(name, actual, &golden.tensor(name).to_f64(), Tolerance::F32);
    };
    compare("out_full", &gated(&output.out));
    compare("dgate_full", &dgate);
    compare("dq_full", values(&grads.dq));
    compare("dk_full", values(&grads.dk));
    compare("dv_full", values(&grads.dv));
}
