//! The profile of attention against a direct computation in `f64`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::collections::BTreeMap;

use ssa_data::{Document, HeldOut, Tokenizer};
use ssa_eval::{Analysis, AttentionProfile, EvalBatch, analyze, analyze_in_detail};
use ssa_kernels::ops::attention::selection::{SelectionRule, select_by_means};
use ssa_model::{
    AttentionMode, AttentionOptions, LayerAttention, Method, Model, ModelConfig, ModelSettings,
    RopeScaling, SparseBudget,
};
use ssa_ranks::Ranks;

const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 8;
const BLOCK_SIZE: usize = 4;

fn model() -> Model {
    let settings = ModelSettings {
        vocab_size: 257,
        hidden_size: 24,
        intermediate_size: 32,
        num_hidden_layers: LAYERS,
        num_attention_heads: HEADS,
        num_key_value_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: 160,
        initializer_range: 0.4,
        tie_word_embeddings: true,
        gated: true,
        qkv_bias: false,
        qk_norm: false,
        budget: SparseBudget::new(BLOCK_SIZE, 3).unwrap(),
        window_size: 0,
        attention_method: Method::SSA,
        bos_token_id: None,
        eos_token_id: vec![256],
    };
    Model::init(ModelConfig::new(settings).unwrap(), 5).unwrap()
}

/// Two documents in a row, one longer than a bin of positions, and padding at the end.
fn batches() -> Vec<EvalBatch> {
    let document = |length: usize| {
        let byte = |at: usize| b'a' + ((at * 7 + at / 5 + at * at / 11) % 23) as u8;
        Document { name: length.to_string(), text: (0..length).map(byte).collect() }
    };
    let documents = [document(30), document(140), document(21)];
    let held_out = HeldOut::from_documents(&documents, &Tokenizer::Bytes, 160).unwrap();
    EvalBatch::of(&held_out, 2).unwrap()
}

fn detailed(model: &Model) -> Analysis {
    let budget = model.config().budget;
    analyze_in_detail(model, &batches(), budget, SelectionRule::Exact, &mut |_| ()).unwrap()
}

/// Sums of a direct computation for one inference mode.
#[derive(Default)]
struct Naive {
    /// Sparsity of each layer and head, with its number of tokens.
    heads: BTreeMap<(usize, usize), (f64, f64)>,
    /// Sparsity by the first position of a bin.
    contexts: BTreeMap<usize, (f64, f64)>,
    /// Selected blocks, weight and dropped weight by the first distance of a bin.
    distances: BTreeMap<usize, [f64; 3]>,
    queries: f64,
    /// Agreement, mass of selected blocks and of the oracle's, and the number of choices.
    oracle: [f64; 4],
}

/// The largest power of two that is at most a number, and 0 for 0.
fn power_below(number: usize) -> usize {
    (0..31).map(|power| 1 << power).filter(|&power| power <= number).max().unwrap_or(0)
}

impl Naive {
    fn add(&mut self, layer: &LayerAttention<'_>, budget: SparseBudget, valid: &[bool]) {
        let selection = budget.selection(SelectionRule::Exact);
        let LayerAttention { q, k, documents, softmax_scale, .. } = *layer;
        let indices = select_by_means(q, k, documents, &selection, softmax_scale).unwrap();
        let indices = indices.to_host().unwrap();
        let (q, k) = (q.to_vec().unwrap(), k.to_vec().unwrap());
        let starts: Vec<usize> = documents.starts().collect();
        for token in (0..valid.len()).filter(|&token| valid[token]) {
            let start = starts[token];
            for kv_head in 0..KV_HEADS {
                let selected: Vec<usize> =
                    indices.selected(token, kv_head).iter().map(|&block| block as usize).collect();
                let blocks = (token - start) / BLOCK_SIZE + 1;
                let mut masses = vec![0.0; blocks];
                for head in kv_head * 2..kv_head * 2 + 2 {
                    let score = |key: usize| -> f64 {
                        let q = &q[(token * HEADS + head) * HEAD_DIM..][..HEAD_DIM];
                        let k = &k[(key * KV_HEADS + kv_head) * HEAD_DIM..][..HEAD_DIM];
                        let dot: f64 =
                            q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        (f64::from(softmax_scale) * dot).exp()
                    };
                    let weights: Vec<f64> = (start..=token).map(score).collect();
                    let total: f64 = weights.iter().sum();
                    let mut sparsity = 0.0;
                    for (at, weight) in weights.iter().enumerate() {
                        masses[at / BLOCK_SIZE] += weight / total / 2.0;
                        if selected.contains(&(at / BLOCK_SIZE)) {
                            sparsity += weight / total;
                        }
                    }
                    let bin = 64 * power_below((token - start) / 64);
                    for sums in [
                        self.heads.entry((layer.layer, head)).or_default(),
                        self.contexts.entry(bin).or_default(),
                    ] {
                        sums.0 += sparsity;
                        sums.1 += 1.0;
                    }
                }
                self.add_blocks(&masses, &selected);
            }
        }
    }

    fn add_blocks(&mut self, masses: &[f64], selected: &[usize]) {
        self.queries += 1.0;
        for (block, mass) in masses.iter().enumerate() {
            let share = self.distances.entry(power_below(masses.len() - 1 - block)).or_default();
            share[1] += mass;
            if selected.contains(&block) {
                share[0] += 1.0;
            } else {
                share[2] += mass;
            }
        }
        if masses.len() > selected.len() {
            let mut left: Vec<usize> = (0..masses.len()).collect();
            for _ in 0..selected.len() {
                let best = *left
                    .iter()
                    .max_by(|&&a, &&b| masses[a].total_cmp(&masses[b]).then(b.cmp(&a)))
                    .unwrap();
                left.retain(|&block| block != best);
                self.oracle[2] += masses[best];
                if selected.contains(&best) {
                    self.oracle[0] += 1.0 / selected.len() as f64;
                }
            }
            self.oracle[1] += selected.iter().map(|&block| masses[block]).sum::<f64>();
            self.oracle[3] += 1.0;
        }
    }

    #[track_caller]
    fn check(&self, profile: &AttentionProfile) {
        let close = |found: f64, expected: f64, what: &str| {
            assert!((found - expected).abs() < 1e-5, "{what}: {found}, expected {expected}");
        };
        for (&(layer, head), (sum, count)) in &self.heads {
            close(profile.heads[layer][head].attention_sparsity, sum / count, "head");
        }
        assert_eq!(profile.by_context.len(), self.contexts.len());
        for (context, (first, (sum, count))) in profile.by_context.iter().zip(&self.contexts) {
            assert_eq!(context.from, first + 1);
            close(context.means.attention_sparsity, sum / count, "context");
        }
        let selected: f64 = self.distances.values().map(|share| share[0]).sum();
        assert_eq!(profile.by_distance.len(), self.distances.len());
        for (share, (first, sums)) in profile.by_distance.iter().zip(&self.distances) {
            assert_eq!(share.from, *first);
            close(share.selected, sums[0] / selected, "selected");
            close(share.attention, sums[1] / self.queries, "attention");
            close(share.dropped, sums[2] / self.queries, "dropped");
        }
        let oracle = profile.oracle.unwrap();
        let [agreement, selected_mass, oracle_mass, choices] = self.oracle;
        close(oracle.agreement, agreement / choices, "agreement");
        close(oracle.selected_mass, selected_mass / choices, "selected mass");
        close(oracle.oracle_mass, oracle_mass / choices, "oracle mass");
    }
}

#[test]
fn profiles_are_those_of_a_direct_computation() {
    let model = model();
    let analysis = detailed(&model);
    let modes = [AttentionMode::Full, AttentionMode::Sparse];
    assert_eq!(analysis.profiles.iter().map(|profile| profile.mode).collect::<Vec<_>>(), modes);
    for profile in &analysis.profiles {
        let budget = model.config().budget;
        let options = AttentionOptions {
            selection: budget.selection(SelectionRule::Exact),
            ..model.config().attention_options(profile.mode)
        };
        let mut naive = Naive::default();
        for batch in batches() {
            let mut observe = |layer: LayerAttention<'_>| {
                naive.add(&layer, budget, &batch.valid);
                Ok(())
            };
            model.forward_observed(&batch.input, &options, &mut observe).unwrap();
        }
        naive.check(profile);
    }
}

#[test]
fn details_agree_with_the_overall_means() {
    let model = model();
    let analysis = detailed(&model);
    for (profile, states) in analysis.profiles.iter().zip(&analysis.hidden_states) {
        for (heads, layer) in profile.heads.iter().zip(&states.layers) {
            let mean = |value: fn(&ssa_eval::AttentionMeans) -> f64| {
                heads.iter().map(value).sum::<f64>() / HEADS as f64
            };
            assert!((mean(|means| means.distance) - layer.distance).abs() < 1e-9);
            assert!((mean(|means| means.bound_tightness) - layer.bound_tightness).abs() < 1e-9);
            assert!(layer.bound_tightness > 0.0 && layer.bound_tightness <= 1.0);
        }
        let sum = |value: fn(&ssa_eval::DistanceShare) -> f64| {
            profile.by_distance.iter().map(value).sum::<f64>()
        };
        assert!((sum(|share| share.selected) - 1.0).abs() < 1e-9);
        assert!((sum(|share| share.attention) - 1.0).abs() < 1e-6);
        assert!((sum(|share| share.dropped) - states.overall.dropped_mass).abs() < 1e-5);
        let oracle = profile.oracle.unwrap();
        assert!(oracle.selected_mass <= oracle.oracle_mass + 1e-9 && oracle.agreement < 1.0);
        // The divergence by context is that of the predictions, weighted by targets.
        assert!(profile.by_context.iter().all(|context| context.kl_full_sparse.unwrap() > 0.0));
    }
    let budget = model.config().budget;
    let (rule, mut alone) = (SelectionRule::Exact, Ranks::alone());
    let brief = analyze(&model, &batches(), budget, rule, &mut alone, &mut |_| ()).unwrap();
    assert_eq!(Analysis { profiles: Vec::new(), ..analysis }, brief);
}

#[test]
fn divergences_by_context_add_up() {
    let model = model();
    let analysis = detailed(&model);
    let mut targets = BTreeMap::new();
    for batch in batches() {
        for (token, position) in batch.input.documents().positions().enumerate() {
            if batch.labels[token] >= 0 {
                *targets.entry(64 * power_below(position / 64) + 1).or_insert(0.0) += 1.0;
            }
        }
    }
    let contexts = &analysis.profiles[1].by_context;
    let sum: f64 = contexts
        .iter()
        .map(|context| targets[&context.from] * context.kl_full_sparse.unwrap())
        .sum();
    let mean = sum / targets.values().sum::<f64>();
    assert!((mean - analysis.kl_full_sparse.unwrap()).abs() < 1e-6, "{mean}");
}
