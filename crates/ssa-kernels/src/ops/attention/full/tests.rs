use ssa_testkit::{Golden, Random, Tolerance, assert_close, assert_gradient, golden_dir};

use super::super::reference::Inputs as ReferenceInputs;
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
        let [q, dout] =
            [(); 2].map(|()| tensor(&mut random, [batch, tokens, kv_heads * group, head_dim]));
        let [k, v] = [(); 2].map(|()| tensor(&mut random, [batch, tokens, kv_heads, head_dim]));
        let documents = if longest_document == 0 {
            Documents::rows(batch, tokens)
        } else {
            Documents::from_cu_seqlens(random.cu_seqlens(batch * tokens, longest_document)).unwrap()
        };
        // Twice the usual scale: peaked distributions, so that maxima move from tile to tile.
        Self { q, k, v, dout, documents, softmax_scale: 2.0 / (head_dim as f32).sqrt() }
    }

    /// Checks an output, and gradients that were added to ones, against the references of a method.
    pub(in crate::ops::attention) fn check(
        &self,
        (output, grads): (AttentionOutput, AttentionGrads),
        forward: impl Fn(&ReferenceInputs<'_>, &Documents) -> (Vec<f64>, Vec<f64>),
        backward: impl Fn(&[f64], &ReferenceInputs<'_>, &Documents) -> (Vec<f64>, Vec<f64>, Vec<f64>),
    ) {
        let [q, k, v, dout] = [&self.q, &self.k, &self.v, &self.dout].map(to_f64);
        let inputs = ReferenceInputs {
            q: &q,
            k: &k,
            v: &v,
            q_heads: self.q.shape()[2],
            kv_heads: self.k.shape()[self.k.shape().len() - 2],
            head_dim: self.q.last_dim(),
            softmax_scale: f64::from(self.softmax_scale),
        };
        let (out, lse) = forward(&inputs, &self.documents);
        assert_close("out", output.out.as_slice(), &out, Tolerance::F32);
        assert_close("lse", output.lse.as_slice(), &lse, Tolerance::F32);
        let (dq, dk, dv) = backward(&dout, &inputs, &self.documents);
        let [dq, dk, dv] =
            [dq, dk, dv].map(|gradient| gradient.iter().map(|x| x + 1.0).collect::<Vec<_>>());
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
        inputs.check(run(&inputs), reference::forward, reference::backward);
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
    let inputs = ReferenceInputs {
        q: &q,
        k: &k,
        v: &v,
        q_heads: 4,
        kv_heads: 2,
        head_dim: 2,
        softmax_scale: 0.7,
    };
    let (dq, dk, dv) = reference::backward(&dout, &inputs, &documents);
    let loss = |inputs: ReferenceInputs<'_>| dot(&reference::forward(&inputs, &documents).0, &dout);
    assert_gradient("dq", &q, &dq, |q| loss(ReferenceInputs { q, ..inputs }));
    assert_gradient("dk", &k, &dk, |k| loss(ReferenceInputs { k, ..inputs }));
    assert_gradient("dv", &v, &dv, |v| loss(ReferenceInputs { v, ..inputs }));
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
    let documents = Documents::rows(q.shape()[0], q.shape()[1]);
    let softmax_scale = (head_dim as f32).powf(-0.5);
    let gated = |x: &Tensor| {
        let heads = x.as_slice().chunks(head_dim).zip(gate.as_slice());
        heads.flat_map(|(head, gate)| head.iter().map(move |x| x * gate)).collect::<Vec<_>>()
    };

    let output = full_attention_fwd(&q, &k, &v, &documents, softmax_scale).unwrap();
    let heads = dout.as_slice().chunks(head_dim).zip(output.out.as_slice().chunks(head_dim));
    let dgate: Vec<f32> =
        heads.map(|(dout, out)| dout.iter().zip(out).map(|(a, b)| a * b).sum()).collect();
    let dout = Tensor::from_vec(gated(&dout), q.shape()).unwrap();
    let mut grads = AttentionGrads::zeros_like(&q, &k, &v);
    full_attention_bwd(&dout, &q, &k, &v, &output, &documents, softmax_scale, &mut grads).unwrap();

    let compare = |name: &str, actual: &[f32]| {
        assert_close(name, actual, &golden.tensor(name).to_f64(), Tolerance::F32);
    };
    compare("out_full", &gated(&output.out));
    compare("dgate_full", &dgate);
    compare("dq_full", grads.dq.as_slice());
    compare("dk_full", grads.dk.as_slice());
    compare("dv_full", grads.dv.as_slice());
}
