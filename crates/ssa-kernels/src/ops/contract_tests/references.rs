//! Every reference refuses slices whose sizes do not fit.

use crate::ops::attention::alignment::{AlignmentOptions, reference as alignment};
use crate::ops::attention::cached::reference::{self as cached, CachedSequence};
use crate::ops::attention::gated_pair::reference::{self as gated_pair, Pair};
use crate::ops::attention::reference::AttentionInputs;
use crate::ops::attention::selection::BlockIndices;
use crate::ops::attention::selection::reference::{self as selection, SelectionInputs};
use crate::ops::attention::{AttentionMode, cached::CachedKeys, compression, full, sparse};
use crate::ops::attention::{pooling::reference as pooling, statistics::reference as statistics};
use crate::ops::gate::{GateBranch, reference as gate};
use crate::ops::{adamw, bias, cross_entropy, embedding, linear, rms_norm, rope, swiglu};
use crate::{Documents, Result};

const TOKENS: usize = 4;
const HEADS: usize = 2;
const HEAD_DIM: usize = 3;
const HIDDEN: usize = 5;
const VOCAB: usize = 7;
const IDS: [u32; TOKENS] = [0, 6, 3, 3];
const LABELS: [i32; TOKENS] = [0, 6, -100, 3];
const VALID: [bool; TOKENS] = [true, false, true, true];
/// Elements of the heads of all tokens.
const Q: usize = TOKENS * HEADS * HEAD_DIM;
const K: usize = TOKENS * HEAD_DIM;
const X: usize = TOKENS * HIDDEN;
const HEAD: usize = VOCAB * HIDDEN;

/// A reference with the lengths of its slices.
struct Reference {
    name: &'static str,
    lens: &'static [usize],
    run: fn(&[&[f64]]) -> Result<()>,
}

macro_rules! reference {
    ($name:literal, [$($slice:ident: $len:expr),+], $call:expr) => {
        Reference {
            name: $name,
            lens: &[$($len),+],
            run: |slices| {
                let [$($slice),+] = *slices else { panic!("{} has other slices", $name) };
                $call.map(drop)
            },
        }
    };
}

fn documents() -> Documents {
    Documents::rows(1, TOKENS).unwrap()
}

fn inputs<'a>(q: &'a [f64], k: &'a [f64], v: &'a [f64]) -> AttentionInputs<'a> {
    AttentionInputs { q, k, v, q_heads: HEADS, kv_heads: 1, head_dim: HEAD_DIM, softmax_scale: 1.0 }
}

fn sequence<'a>(q: &'a [f64], keys: &'a [f64], values: &'a [f64]) -> CachedSequence<'a> {
    let AttentionInputs { q_heads, kv_heads, head_dim, softmax_scale, .. } =
        inputs(q, keys, values);
    let (first_position, page_size) = (0, 2);
    CachedSequence {
        q,
        first_position,
        keys,
        values,
        q_heads,
        kv_heads,
        head_dim,
        page_size,
        softmax_scale,
    }
}

fn pair<'a>(
    full: &'a [f64],
    sparse: &'a [f64],
    gate: &'a [f64],
    options: &'a AlignmentOptions,
) -> Pair<'a> {
    let (head_dim, chosen) = (HEAD_DIM, AttentionMode::Full);
    Pair { full, sparse, gate, head_dim, chosen, gated: true, valid: &VALID, options }
}

fn references() -> Vec<Reference> {
    vec![
        reference!("linear", [x: X, w: HEAD], linear::reference::forward(x, w, HIDDEN)),
        reference!("linear backward", [dout: TOKENS * VOCAB, x: X, w: HEAD],
            linear::reference::backward(dout, x, w, HIDDEN)),
        reference!("bias", [x: TOKENS * VOCAB, b: VOCAB], bias::reference::forward(x, b)),
        reference!("bias backward", [dout: X], bias::reference::backward(dout, HIDDEN)),
        reference!("rms_norm", [x: TOKENS * VOCAB, w: VOCAB],
            rms_norm::reference::forward(x, w, 1e-5)),
        reference!("rms_norm backward", [dout: TOKENS * VOCAB, x: TOKENS * VOCAB, w: VOCAB],
            rms_norm::reference::backward(dout, x, w, 1e-5)),
        reference!("swiglu", [gate: X, up: X], swiglu::reference::forward(gate, up)),
        reference!("swiglu backward", [dout: X, gate: X, up: X],
            swiglu::reference::backward(dout, gate, up)),
        reference!("embedding", [w: HEAD], embedding::reference::forward(&IDS, w, HIDDEN)),
        reference!("embedding backward", [dout: X],
            embedding::reference::backward(dout, &IDS, VOCAB, HIDDEN)),
        reference!("adamw", [param: X, m: X, v: X, grad: X], {
            let [param, m, v] = [param, m, v].map(<[f64]>::to_vec);
            let options = super::table::ADAMW;
            let mut state = adamw::reference::State { param, m, v };
            adamw::reference::step(&mut state, grad, &options, 1, 1.0)
        }),
        reference!("losses", [x: X, w: HEAD],
            cross_entropy::reference::losses(x, w, &LABELS, HIDDEN)),
        reference!("divergences", [p: X, q: X, w: HEAD],
            cross_entropy::reference::divergences(p, q, w, &LABELS, HIDDEN)),
        reference!("cross-entropy backward", [x: X, w: HEAD],
            cross_entropy::reference::backward(x, w, &LABELS, HIDDEN, 0.0)),
        reference!("rope", [x: TOKENS * HEADS * 4, inv_freq: 2],
            rope::reference::forward(x, &[0, 1, 2, 3], HEADS, inv_freq)),
        reference!("gate", [x: X, g_proj: 3 * HEADS * HIDDEN],
            gate::forward(x, g_proj, GateBranch::Window, HIDDEN)),
        reference!("gate backward",
            [dgate: TOKENS * HEADS, x: X, g_proj: 3 * HEADS * HIDDEN],
            gate::backward(dgate, x, g_proj, GateBranch::Window, HIDDEN)),
        reference!("gate application", [out: Q, gate: TOKENS * HEADS],
            gate::apply_forward(out, gate, HEAD_DIM)),
        reference!("gate application backward", [dgated: Q, out: Q, gate: TOKENS * HEADS],
            gate::apply_backward(dgated, out, gate, HEAD_DIM)),
        reference!("full", [q: Q, k: K, v: K],
            full::reference::forward(&inputs(q, k, v), &documents())),
        reference!("full backward", [dout: Q, q: Q, k: K, v: K],
            full::reference::backward(dout, &inputs(q, k, v), &documents())),
        reference!("compression", [q: Q, k: 2 * HEAD_DIM, v: 2 * HEAD_DIM],
            compression::reference::forward(&inputs(q, k, v), &documents(), 2)),
        reference!("sparse", [q: Q, k: K, v: K], {
            let indices = BlockIndices::all(&documents(), 1, 2)?.to_host()?;
            sparse::reference::forward(&inputs(q, k, v), &indices)
        }),
        reference!("statistics", [q: Q, k: K, v: K], {
            let indices = BlockIndices::all(&documents(), 1, 2)?.to_host()?;
            statistics::statistics(&inputs(q, k, v), &indices)
        }),
        reference!("cached", [q: Q, k: K, v: K],
            cached::forward(&sequence(q, k, v), CachedKeys::All, 0)),
        reference!("pooling", [x: K], pooling::forward(x, &documents(), 2, HEAD_DIM)),
        reference!("pooling backward", [dpooled: 2 * HEAD_DIM],
            pooling::backward(dpooled, &documents(), 2, HEAD_DIM)),
        reference!("importance", [q: Q, k_pooled: 2 * HEAD_DIM], {
            let (q_heads, kv_heads, head_dim, softmax_scale) = (HEADS, 1, HEAD_DIM, 1.0);
            let inputs =
                SelectionInputs { q, k_pooled, q_heads, kv_heads, head_dim, softmax_scale };
            selection::importance(&inputs, &documents(), 2)
        }),
        reference!("alignment", [full: X, sparse: X],
            alignment::forward(full, sparse, &VALID, HIDDEN, &AlignmentOptions::default())),
        reference!("alignment backward", [full: X, sparse: X],
            alignment::backward(full, sparse, &VALID, HIDDEN, &AlignmentOptions::default(), 1.0)),
        reference!("gated pair", [full: Q, sparse: Q, gate: TOKENS * HEADS],
            gated_pair::forward(&pair(full, sparse, gate, &AlignmentOptions::default()))),
        reference!("gated pair backward", [dmixed: Q, full: Q, sparse: Q, gate: TOKENS * HEADS],
        gated_pair::backward(
            dmixed, &pair(full, sparse, gate, &AlignmentOptions::default()), 1.0
        )),
    ]
}

#[test]
fn references_refuse_sizes_that_do_not_fit() {
    for Reference { name, lens, run } in references() {
        let slices: Vec<Vec<f64>> = lens.iter().map(|&len| vec![0.5; len]).collect();
        let slices: Vec<&[f64]> = slices.iter().map(Vec::as_slice).collect();
        run(&slices).unwrap_or_else(|error| panic!("{name}: {error}"));
        for index in 0..slices.len() {
            let longer = vec![0.5; lens[index] + 1];
            for other in [&slices[index][1..], &longer] {
                let mut slices = slices.clone();
                slices[index] = other;
                let refused = run(&slices).err().and_then(|error| error.argument());
                assert!(refused.is_some(), "{name}: slice {index} of {} elements", other.len());
            }
        }
    }
}
