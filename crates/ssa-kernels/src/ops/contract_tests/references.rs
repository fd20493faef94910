//! Every reference refuses slices whose sizes do not fit, and names them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::ops::attention::alignment::{AlignmentOptions, reference as alignment};
use crate::ops::attention::cached::reference::{self as cached, CachedSequence};
use crate::ops::attention::gated_pair::reference::{self as gated_pair, Pair};
use crate::ops::attention::reference::{self as attention, AttentionInputs};
use crate::ops::attention::selection::reference::{self as selection, SelectionInputs};
use crate::ops::attention::selection::{BlockIndices, HostBlockIndices};
use crate::ops::attention::{AttentionMode, cached::CachedKeys, compression, full, sparse, window};
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
/// Elements of the means of blocks of 2 tokens.
const POOLED: usize = TOKENS / 2 * HEAD_DIM;

/// A reference with the names and lengths of its slices.
struct Reference {
    /// `op::function`.
    name: &'static str,
    slices: &'static [(&'static str, usize)],
    run: fn(&[&[f64]]) -> Result<()>,
}

macro_rules! reference {
    ($name:literal, [$($slice:ident: $len:expr),+], $call:expr) => {
        Reference {
            name: $name,
            slices: &[$((stringify!($slice), $len)),+],
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

fn all_blocks() -> Result<HostBlockIndices> {
    BlockIndices::all(&documents(), 1, 2)?.to_host()
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
        reference!("linear::forward", [x: X, weight: HEAD],
            linear::reference::forward(x, weight, HIDDEN)),
        reference!("linear::backward", [dout: TOKENS * VOCAB, x: X, weight: HEAD],
            linear::reference::backward(dout, x, weight, HIDDEN)),
        reference!("bias::forward", [x: TOKENS * VOCAB, bias: VOCAB],
            bias::reference::forward(x, bias)),
        reference!("bias::backward", [dout: X], bias::reference::backward(dout, HIDDEN)),
        reference!("rms_norm::forward", [x: TOKENS * VOCAB, weight: VOCAB],
            rms_norm::reference::forward(x, weight, 1e-5)),
        reference!("rms_norm::backward",
            [dout: TOKENS * VOCAB, x: TOKENS * VOCAB, weight: VOCAB],
            rms_norm::reference::backward(dout, x, weight, 1e-5)),
        reference!("swiglu::forward", [gate: X, up: X], swiglu::reference::forward(gate, up)),
        reference!("swiglu::backward", [dout: X, gate: X, up: X],
            swiglu::reference::backward(dout, gate, up)),
        reference!("embedding::forward", [weight: HEAD],
            embedding::reference::forward(&IDS, weight, HIDDEN)),
        reference!("embedding::backward", [dout: X],
            embedding::reference::backward(dout, &IDS, VOCAB, HIDDEN)),
        reference!("adamw::step", [param: X, m: X, v: X, grad: X], {
            let [param, m, v] = [param, m, v].map(<[f64]>::to_vec);
            let options = super::table::ADAMW;
            let mut state = adamw::reference::State { param, m, v };
            adamw::reference::step(&mut state, grad, &options, 1, 1.0)
        }),
        reference!("cross_entropy::losses", [x: X, weight: HEAD],
            cross_entropy::reference::losses(x, weight, &LABELS, HIDDEN)),
        reference!("cross_entropy::lse_squares", [x: X, weight: HEAD],
            cross_entropy::reference::lse_squares(x, weight, &LABELS, HIDDEN)),
        reference!("cross_entropy::divergences", [x_p: X, x_q: X, weight: HEAD],
            cross_entropy::reference::divergences(x_p, x_q, weight, &LABELS, HIDDEN)),
        reference!("cross_entropy::backward", [x: X, weight: HEAD],
            cross_entropy::reference::backward(x, weight, &LABELS, HIDDEN, 0.0)),
        reference!("rope::forward", [x: TOKENS * HEADS * 4, inv_freq: 2],
            rope::reference::forward(x, &[0, 1, 2, 3], HEADS, inv_freq)),
        reference!("rope::backward", [x: TOKENS * HEADS * 4, inv_freq: 2],
            rope::reference::backward(x, &[0, 1, 2, 3], HEADS, inv_freq)),
        reference!("gate::forward", [x: X, g_proj: 3 * HEADS * HIDDEN],
            gate::forward(x, g_proj, GateBranch::Window, HIDDEN)),
        reference!("gate::backward", [dgate: TOKENS * HEADS, x: X, g_proj: 3 * HEADS * HIDDEN],
            gate::backward(dgate, x, g_proj, GateBranch::Window, HIDDEN)),
        reference!("gate::apply_forward", [out: Q, gate: TOKENS * HEADS],
            gate::apply_forward(out, gate, HEAD_DIM)),
        reference!("gate::apply_backward", [dgated: Q, out: Q, gate: TOKENS * HEADS],
            gate::apply_backward(dgated, out, gate, HEAD_DIM)),
        reference!("attention::forward", [q: Q, k: K, v: K],
            attention::forward(&inputs(q, k, v), |token, _| vec![token])),
        reference!("attention::backward", [dout: Q, q: Q, k: K, v: K],
            attention::backward(dout, &inputs(q, k, v), |token, _| vec![token])),
        reference!("full::forward", [q: Q, k: K, v: K],
            full::reference::forward(&inputs(q, k, v), &documents())),
        reference!("full::backward", [dout: Q, q: Q, k: K, v: K],
            full::reference::backward(dout, &inputs(q, k, v), &documents())),
        reference!("window::forward", [q: Q, k: K, v: K],
            window::reference::forward(&inputs(q, k, v), &documents(), 2)),
        reference!("window::backward", [dout: Q, q: Q, k: K, v: K],
            window::reference::backward(dout, &inputs(q, k, v), &documents(), 2)),
        reference!("compression::forward", [q: Q, k: POOLED, v: POOLED],
            compression::reference::forward(&inputs(q, k, v), &documents(), 2)),
        reference!("compression::backward", [dout: Q, q: Q, k: POOLED, v: POOLED],
            compression::reference::backward(dout, &inputs(q, k, v), &documents(), 2)),
        reference!("sparse::forward", [q: Q, k: K, v: K],
            sparse::reference::forward(&inputs(q, k, v), &all_blocks()?)),
        reference!("sparse::backward", [dout: Q, q: Q, k: K, v: K],
            sparse::reference::backward(dout, &inputs(q, k, v), &all_blocks()?)),
        reference!("statistics::statistics", [q: Q, k: K, v: K],
            statistics::statistics(&inputs(q, k, v), &all_blocks()?)),
        reference!("cached::means", [rows: K], cached::means(rows, HEAD_DIM, 2)),
        reference!("cached::forward", [q: Q, keys: K, values: K],
            cached::forward(&sequence(q, keys, values), CachedKeys::All, 0)),
        reference!("pooling::forward", [x: K], pooling::forward(x, &documents(), 2, HEAD_DIM)),
        reference!("pooling::backward", [dpooled: POOLED],
            pooling::backward(dpooled, &documents(), 2, HEAD_DIM)),
        reference!("selection::importance", [q: Q, k_pooled: POOLED], {
            let (q_heads, kv_heads, head_dim, softmax_scale) = (HEADS, 1, HEAD_DIM, 1.0);
            let inputs =
                SelectionInputs { q, k_pooled, q_heads, kv_heads, head_dim, softmax_scale };
            selection::importance(&inputs, &documents(), 2)
        }),
        reference!("alignment::forward", [full: X, sparse: X],
            alignment::forward(full, sparse, &VALID, HIDDEN, &AlignmentOptions::default())),
        reference!("alignment::backward", [full: X, sparse: X],
            alignment::backward(full, sparse, &VALID, HIDDEN, &AlignmentOptions::default(), 1.0)),
        reference!("gated_pair::forward", [full: Q, sparse: Q, gate: TOKENS * HEADS],
            gated_pair::forward(&pair(full, sparse, gate, &AlignmentOptions::default()))),
        reference!("gated_pair::backward",
        [dmixed: Q, full: Q, sparse: Q, gate: TOKENS * HEADS],
        gated_pair::backward(
            dmixed, &pair(full, sparse, gate, &AlignmentOptions::default()), 1.0
        )),
    ]
}

/// The fallible functions of all references, as `op::function`.
fn declared() -> BTreeSet<String> {
    let ops = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    let mut names = BTreeSet::new();
    for path in reference_sources(&ops) {
        let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let source = std::fs::read_to_string(&path).unwrap();
        let functions = source.split("\npub fn ").skip(1);
        let fallible = functions.filter(|text| text.split('{').next().unwrap().contains("Result<"));
        let name = |text: &str| text.split(['(', '<']).next().unwrap().to_owned();
        names.extend(fallible.map(|text| format!("{folder}::{}", name(text))));
    }
    names
}

fn reference_sources(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = paths.flat_map(|path| match path.is_dir() {
        true => reference_sources(&path),
        false => vec![path],
    });
    sources.filter(|path| path.ends_with("reference.rs")).collect()
}

#[test]
fn every_reference_is_tested() {
    let listed: BTreeSet<String> =
        references().into_iter().map(|reference| reference.name.to_owned()).collect();
    assert_eq!(listed, declared());
}

#[test]
fn references_refuse_sizes_that_do_not_fit() {
    let mut findings = Vec::new();
    for Reference { name, slices: arguments, run } in references() {
        let slices: Vec<Vec<f64>> = arguments.iter().map(|&(_, len)| vec![0.5; len]).collect();
        let slices: Vec<&[f64]> = slices.iter().map(Vec::as_slice).collect();
        run(&slices).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (index, &(argument, len)) in arguments.iter().enumerate() {
            let longer = vec![0.5; len + 1];
            for other in [&slices[index][1..], &longer] {
                let mut slices = slices.clone();
                slices[index] = other;
                let refused = run(&slices).err().and_then(|error| error.argument());
                // Of two slices that must agree, either may be the one that does not fit.
                let field = refused.and_then(|refused| refused.rsplit('.').next());
                if !arguments.iter().any(|&(name, _)| Some(name) == field) {
                    findings.push(format!("{name}, {argument} of {}: {refused:?}", other.len()));
                }
            }
        }
    }
    assert_eq!(findings, Vec::<String>::new());
}
