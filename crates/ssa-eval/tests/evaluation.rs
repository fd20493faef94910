//! Perplexity and analysis of small random models: against direct computation, and invariants.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use ssa_data::{DataError, Document, HeldOut, Tokenizer};
use ssa_eval::{
    EvalBatch, EvalError, MassResult, Perplexity, PerplexityOptions, analyze,
    evaluate_mass_budgets, perplexity,
};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_kernels::ops::cross_entropy::linear_cross_entropy_losses;
use ssa_model::{
    AttentionMode, Method, Model, ModelConfig, ModelSettings, RopeScaling, SparseBudget,
};
use ssa_ranks::{Deadlines, Ranks, Rendezvous, World};

/// A byte model with weights large enough that attention is far from uniform.
fn model(method: Method) -> Model {
    let settings = ModelSettings {
        vocab_size: 257,
        hidden_size: 24,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: 64,
        initializer_range: 0.4,
        tie_word_embeddings: true,
        gated: true,
        qkv_bias: false,
        qk_norm: false,
        budget: SparseBudget::new(4, 2).unwrap(),
        window_size: if method.uses_window() { 6 } else { 0 },
        attention_method: method,
        bos_token_id: None,
        eos_token_id: vec![256],
    };
    Model::init(ModelConfig::new(settings).unwrap(), 3).unwrap()
}

/// Documents of several lengths, 147 tokens including their ends: the last row of 64 is padded.
fn documents() -> Vec<Document> {
    let document = |index: usize| {
        let byte = |position: usize| b'a' + ((position * (index + 3) + position / 5) % 23) as u8;
        Document { name: format!("{index}"), text: (0..[1, 80, 7, 55][index]).map(byte).collect() }
    };
    (0..4).map(document).collect()
}

fn held_out(documents: &[Document]) -> Result<HeldOut, DataError> {
    HeldOut::from_documents(documents, &Tokenizer::Bytes, 64)
}

fn batches(batch_size: usize) -> Vec<EvalBatch> {
    EvalBatch::of(&held_out(&documents()).unwrap(), batch_size).unwrap()
}

fn budgets(list: &[&str]) -> Vec<SparseBudget> {
    list.iter().map(|budget| budget.parse().unwrap()).collect()
}

fn evaluate(model: &Model, batch_size: usize, list: &[&str]) -> Result<Perplexity, EvalError> {
    let options = PerplexityOptions {
        budgets: budgets(list),
        rule: SelectionRule::Exact,
        sparsity_batches: usize::MAX,
    };
    perplexity(model, &batches(batch_size), &options, &mut Ranks::alone(), &mut |_| ())
}

#[test]
fn the_loss_is_that_of_the_fused_head() {
    let model = model(Method::SSA);
    let (mut nll, mut targets) = (0.0, 0);
    for batch in batches(2) {
        let options = model.config().attention_options(AttentionMode::Sparse);
        let hidden = model.forward(&batch.input, &options).unwrap();
        let losses =
            linear_cross_entropy_losses(&hidden, model.parameters().head(), &batch.labels).unwrap();
        nll += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        targets += batch.labels.iter().filter(|&&label| label >= 0).count();
    }
    let found = evaluate(&model, 2, &["4x2"]).unwrap();
    // Every byte except the first of each document is a target, and so is the end of each document.
    assert_eq!((found.targets, found.bytes, found.rows), (143, 143, 3));
    assert_eq!(targets, found.targets);
    let sparse = found.at("4x2".parse().unwrap()).unwrap();
    assert!((sparse.nats_per_token - nll / targets as f64).abs() < 1e-5);
    assert!((sparse.perplexity.ln() - sparse.nats_per_token).abs() < 1e-12);
    assert!((sparse.bits_per_byte * std::f64::consts::LN_2 - sparse.nats_per_token).abs() < 1e-12);
}

#[test]
fn a_budget_of_everything_is_full_attention() {
    let found = evaluate(&model(Method::SSA), 2, &["4x1", "4x16", "64x1"]).unwrap();
    let full = found.full().unwrap().clone();
    assert_eq!((full.budget, full.receptive_field, full.kl_full_sparse), (None, None, None));
    let [narrow, rest @ ..] = &found.results[1..] else { panic!("three budgets") };
    assert!(narrow.kl_full_sparse.unwrap() > 1e-3, "{narrow:?}");
    assert!(narrow.attention_sparsity.unwrap() < 0.9, "{narrow:?}");
    for all in rest {
        assert!((all.bits_per_byte - full.bits_per_byte).abs() < 1e-5, "{all:?}");
        assert!(all.kl_full_sparse.unwrap().abs() < 1e-8, "{all:?}");
        assert!((all.attention_sparsity.unwrap() - 1.0).abs() < 1e-5, "{all:?}");
    }
}

#[test]
fn batches_only_decide_what_runs_together() {
    let model = model(Method::MOBA);
    let [one, three] = [1, 3].map(|size| evaluate(&model, size, &["4x1", "2x3"]).unwrap());
    assert_eq!((one.targets, one.bytes, one.rows), (three.targets, three.bytes, three.rows));
    for (one, three) in one.results.iter().zip(&three.results) {
        assert!((one.nats_per_token - three.nats_per_token).abs() < 1e-6);
        assert!((one.attention_sparsity.unwrap() - three.attention_sparsity.unwrap()).abs() < 1e-6);
        assert!(
            (one.kl_full_sparse.unwrap_or(0.0) - three.kl_full_sparse.unwrap_or(0.0)).abs() < 1e-6
        );
    }
}

#[test]
fn nsa_has_no_full_attention_to_compare_with() {
    let found = evaluate(&model(Method::NSA), 2, &["4x2"]).unwrap();
    assert!(found.full().is_none() && found.results.len() == 1);
    assert!(found.results[0].kl_full_sparse.is_none());
    let analysis = analyze(
        &model(Method::NSA),
        &batches(2),
        "4x2".parse().unwrap(),
        SelectionRule::Exact,
        &mut Ranks::alone(),
        &mut |_| (),
    );
    let analysis = analysis.unwrap();
    assert!(analysis.under(AttentionMode::Full).is_none() && analysis.kl_full_sparse.is_none());
}

#[test]
fn the_theory_holds_in_every_layer() {
    let model = model(Method::SSA);
    let mut progress = vec![];
    let budget = "4x2".parse().unwrap();
    let analysis = analyze(
        &model,
        &batches(2),
        budget,
        SelectionRule::Exact,
        &mut Ranks::alone(),
        &mut |done| progress.push(done),
    )
    .unwrap();
    assert_eq!(progress, [1, 2]);
    assert_eq!(analysis.tokens, 147, "padding does not count");
    for states in &analysis.hidden_states {
        assert_eq!(states.layers.len(), 2);
        for means in states.layers.iter().chain([&states.overall]) {
            assert!((means.attention_sparsity + means.dropped_mass - 1.0).abs() < 1e-6);
            assert!(means.distance > 0.0 && means.distance <= means.bound);
            assert_eq!(means.bound_holds, 1.0);
            assert!(means.max_violation < 1e-5 && means.identity_error < 1e-5, "{means:?}");
            assert!(means.entropy_bits > 0.0 && means.entropy_bits < 6.0);
        }
    }
    // Both modes run the same first layer on the same embeddings.
    let [full, sparse] =
        [AttentionMode::Full, AttentionMode::Sparse].map(|mode| analysis.under(mode).unwrap());
    assert_eq!(full.layers[0], sparse.layers[0]);
    assert_ne!(full.layers[1], sparse.layers[1]);
    // The perplexity at the training budget is measured on the same hidden states.
    let found = evaluate(&model, 2, &["4x2"]).unwrap();
    let result = found.at(budget).unwrap();
    assert!((result.kl_full_sparse.unwrap() - analysis.kl_full_sparse.unwrap()).abs() < 1e-12);
    // One is computed from two log-sum-exps, the other from single weights.
    assert!((result.attention_sparsity.unwrap() - sparse.overall.attention_sparsity).abs() < 1e-5);
}

#[test]
fn ranks_share_the_batches_and_find_the_same() {
    let budget = "4x2".parse().unwrap();
    let measure = |ranks: &mut Ranks| {
        let (model, batches) = (model(Method::SSA), batches(1));
        let options = PerplexityOptions {
            budgets: vec![budget],
            rule: SelectionRule::Exact,
            sparsity_batches: 2,
        };
        let found = perplexity(&model, &batches, &options, ranks, &mut |_| ()).unwrap();
        let rule = SelectionRule::Exact;
        let analysis = analyze(&model, &batches[..2], budget, rule, ranks, &mut |_| ()).unwrap();
        (found, analysis)
    };
    let alone = measure(&mut Ranks::alone());
    for size in [2, 3] {
        let world = |rank, port| World { rank, size, port, ..World::alone() };
        let leader = Rendezvous::new(World { token: "run".to_owned(), ..world(0, 0) }).unwrap();
        let port = leader.world().port;
        let meet = |rendezvous: Rendezvous| {
            let ranks = rendezvous.meet(vec![], Deadlines::default(), || Ok(()), |_| {});
            let mut ranks = ranks.unwrap();
            let found = measure(&mut ranks);
            ranks.leave().unwrap();
            found
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..size)
                .map(|rank| {
                    let world = World { token: "run".to_owned(), ..world(rank, port) };
                    scope.spawn(move || meet(Rendezvous::new(world).unwrap()))
                })
                .collect();
            assert_eq!(meet(leader), alone, "rank 0 of {size}");
            others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), alone));
        });
    }
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let mut diverged = model(Method::SSA);
    diverged.parameters_mut().norm.as_mut_slice().unwrap().fill(f32::NAN);
    let error = evaluate(&diverged, 2, &["4x2"]).unwrap_err();
    assert!(matches!(&error, EvalError::NotFinite { batch: 0, .. }), "{error}");
    let budget = "4x2".parse().unwrap();
    let error = analyze(
        &diverged,
        &batches(2),
        budget,
        SelectionRule::Exact,
        &mut Ranks::alone(),
        &mut |_| (),
    )
    .unwrap_err();
    assert!(matches!(&error, EvalError::NotFinite { batch: 0, .. }), "{error}");
    let empty = Document { name: "empty".to_owned(), text: vec![] };
    let error = held_out(&[empty]).unwrap_err().to_string();
    assert!(error.contains("no text"), "{error}");
    let error = EvalBatch::of(&held_out(&documents()).unwrap(), 0).unwrap_err();
    assert!(
        matches!(error, EvalError::Data(DataError::Setting { setting: "batch_size", .. })),
        "{error}"
    );
    let options =
        PerplexityOptions { budgets: vec![], rule: SelectionRule::Exact, sparsity_batches: 0 };
    let none = perplexity(&model(Method::SSA), &[], &options, &mut Ranks::alone(), &mut |_| ());
    assert!(matches!(none, Err(EvalError::NoTargets)));
}

fn by_mass(model: &Model, list: &[&str]) -> Vec<MassResult> {
    let budgets: Vec<_> = list.iter().map(|budget| budget.parse().unwrap()).collect();
    evaluate_mass_budgets(model, &batches(2), &budgets, &mut |_| ()).unwrap()
}

#[test]
fn a_mass_budget_of_fixed_size_is_that_budget() {
    for method in [Method::SSA, Method::NSA] {
        let model = model(method);
        let fixed = evaluate(&model, 2, &["4x1", "4x3"]).unwrap();
        let fixed = fixed.results.iter().filter(|result| result.budget.is_some());
        let results = by_mass(&model, &["mass=0.5,1..1", "mass=0.5,3..3"]);
        for (fixed, result) in fixed.zip(&results) {
            assert!((fixed.bits_per_byte - result.bits_per_byte).abs() < 1e-4, "{result:?}");
            assert_eq!(fixed.kl_full_sparse.is_some(), result.kl_full_sparse.is_some());
            let sparsity = fixed.attention_sparsity.unwrap();
            assert!((sparsity - result.overall.true_mass).abs() < 1e-4, "{sparsity}: {result:?}");
        }
        assert!((results[0].overall.blocks_read - 1.0).abs() < 1e-12);
        assert_eq!(results[0].layers.len(), 2);
    }
}

#[test]
fn more_mass_reads_more_blocks() {
    let model = model(Method::SSA);
    let list = ["mass=0.3,1..16", "mass=0.7,1..16", "mass=0.95,1..16", "mass=1,16..16"];
    let results = by_mass(&model, &list);
    for pair in results.windows(2) {
        let [less, more] = [pair[0].overall, pair[1].overall];
        assert!(less.blocks_read < more.blocks_read, "{less:?} {more:?}");
        assert!(less.estimated_mass < more.estimated_mass, "{less:?} {more:?}");
        assert!(less.true_mass < more.true_mass, "{less:?} {more:?}");
    }
    let least = results.iter().zip([0.3, 0.7, 0.95]);
    least.for_each(|(result, least)| assert!(result.overall.estimated_mass >= least));
    let full = evaluate(&model, 2, &[]).unwrap().full().unwrap().clone();
    let all = &results[3];
    assert!((all.bits_per_byte - full.bits_per_byte).abs() < 1e-4);
    assert!(all.kl_full_sparse.unwrap().abs() < 1e-6 && all.overall.true_mass > 0.9999, "{all:?}");
}
