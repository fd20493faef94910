//! Cached inference equals the forward pass over the whole text: for every method, budget and rule,
//! and however texts are cut into calls.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use ssa_infer::{
    CallOptions, Engine, FillChange, InferError, InferenceModel, Logits, PageBudget, PageOptions,
    SequenceId,
};
use ssa_kernels::KernelError;
use ssa_kernels::ops::attention::selection::{SelectionRule, SparseBudget};
use ssa_model::{AttentionMode, AttentionOptions, Input, Method, Model, ModelConfig};
use ssa_testkit::{Golden, Random, golden_dir, max_error};

const VOCAB: u32 = 31;

/// What the released code computes differs from a float64 recomputation by up to 1.3e-4.
const GOLDEN_TOLERANCE: f64 = 2e-4;

fn model(method: Method) -> Model {
    let json = serde_json::json!({
        "model_type": "llama-nsa", "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 900,
        "initializer_range": 0.15, "tie_word_embeddings": true, "block_size": 4,
        "block_counts": 3, "window_size": 10, "attention_method": method.to_string(),
    });
    let config = ModelConfig::from_json("test", json.as_object().unwrap()).unwrap();
    Model::init(config, 7).unwrap()
}

fn engine(model: &Model, options: &AttentionOptions, capacity: usize) -> Engine {
    let page_size = options.selection.budget.block_size();
    let model = InferenceModel::new(model, options.method).unwrap();
    Engine::new(model, page_size, capacity).unwrap()
}

fn call_options(options: &AttentionOptions) -> CallOptions {
    CallOptions::new(options, options.selection.budget.block_size()).unwrap()
}

fn ids(seed: u64, len: usize) -> Vec<u32> {
    Random::new(seed).below(VOCAB, len)
}

/// The logits of all tokens of one text, in one call.
fn in_one_call(engine: &mut Engine, text: &[u32], options: &CallOptions) -> Vec<f32> {
    let id = engine.add_sequence();
    let output = engine.forward(&[(id, text)], options, Logits::All).unwrap();
    engine.remove_sequence(id).unwrap();
    output.logits.to_vec().unwrap()
}

/// The logits of all tokens of every text, which are cut into chunks of at most `longest` tokens
/// and computed together in changing order.
fn in_chunks(
    engine: &mut Engine,
    texts: &[Vec<u32>],
    options: &CallOptions,
    longest: u32,
    random: &mut Random,
) -> Vec<Vec<f32>> {
    let vocab_size = engine.model().config().vocab_size;
    let ids: Vec<SequenceId> = texts.iter().map(|_| engine.add_sequence()).collect();
    let mut logits = vec![Vec::new(); texts.len()];
    loop {
        let mut chunks: Vec<(usize, &[u32])> = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let rest = &text[engine.tokens(ids[index]).len()..];
            let len = (random.below(longest, 1)[0] as usize + 1).min(rest.len());
            if len > 0 && random.below(3, 1)[0] > 0 {
                chunks.insert(
                    random.below(chunks.len() as u32 + 1, 1)[0] as usize,
                    (index, &rest[..len]),
                );
            }
        }
        let call: Vec<_> = chunks.iter().map(|&(index, chunk)| (ids[index], chunk)).collect();
        let output = engine.forward(&call, options, Logits::All).unwrap().logits;
        let mut rows = output.as_slice().unwrap();
        for (index, chunk) in chunks {
            let (own, after) = rows.split_at(chunk.len() * vocab_size);
            logits[index].extend_from_slice(own);
            rows = after;
        }
        if texts.iter().zip(&ids).all(|(text, &id)| engine.tokens(id) == text) {
            return logits;
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Every method in each of its modes.
fn streams() -> Vec<(Method, AttentionMode)> {
    Method::ALL.iter().flat_map(|&method| method.modes().map(move |mode| (method, mode))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cached_inference_equals_the_forward_pass(
        stream in 0..streams().len(),
        block_size in prop::sample::select(vec![1_usize, 3, 4, 16, 64]),
        block_counts in 1..6_usize,
        reference in any::<bool>(),
        window_size in 1..20_usize,
        longest in prop::sample::select(vec![1_u32, 7, 200]),
        seed in any::<u64>(),
    ) {
        let (method, mode) = streams()[stream];
        let model = model(method);
        let mut options = model.config().attention_options(mode);
        let budget = SparseBudget::new(block_size, block_counts).unwrap();
        let reference = reference && budget.refused_by(SelectionRule::Reference).is_none();
        let rule = if reference { SelectionRule::Reference } else { SelectionRule::Exact };
        options.selection = budget.selection(rule);
        options.window_size = window_size;
        let mut random = Random::new(seed);
        let lengths = random.below(120, 3);
        // Longer than the budget, so that there is something to select.
        let texts: Vec<_> = lengths.iter().zip(0..).map(|(&length, index)| {
            ids(seed ^ index, length as usize + 1 + if index == 0 { 100 } else { 0 })
        }).collect();
        let mut engine = engine(&model, &options, 1000);
        let call = call_options(&options);
        let whole: Vec<_> =
            texts.iter().map(|text| in_one_call(&mut engine, text, &call)).collect();
        for (text, whole) in texts.iter().zip(&whole) {
            let input = Input::rows(text.clone(), 1, text.len()).unwrap();
            let expected = model.logits(&model.forward(&input, &options).unwrap()).unwrap();
            let error = max_error(whole, expected.as_slice().unwrap());
            prop_assert!(error < 1e-4, "{} {}: {:.1e}", method, mode, error);
        }
        let chunks = in_chunks(&mut engine, &texts, &call, longest, &mut random);
        for (chunks, whole) in chunks.iter().zip(&whole) {
            prop_assert_eq!(bits(chunks), bits(whole));
        }
    }
}

/// The texts of a golden file: the rows of its `input_ids`.
fn texts(golden: &Golden) -> Vec<Vec<u32>> {
    let ids = golden.tensor("input_ids");
    let rows = ids.values.chunks(ids.shape[1]);
    rows.map(|row| row.iter().map(|&id| id as u32).collect()).collect()
}

/// The directories of a kind of golden checkpoints.
fn golden_directories(kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(golden_dir().join(kind)).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

#[test]
fn golden_models_give_the_logits_of_the_released_code() {
    let directories = golden_directories("model");
    assert!(directories.len() > 4, "{directories:?}");
    for directory in directories {
        let golden = Golden::read(&directory.join("expected.safetensors"));
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        let method: Method = name.split('_').next().unwrap().parse().unwrap();
        let model = Model::load(&directory).unwrap();
        for (tensor, expected) in &golden.tensors {
            let Some(stream) = tensor.strip_prefix("logits.") else { continue };
            // `eval` is the only stream of its method.
            let mode = stream.parse().unwrap_or(method.main_mode());
            let mut options = model.config().attention_options(mode);
            options.method = method;
            if name.ends_with("streaming_topk") {
                options.selection.rule = SelectionRule::Reference;
            }
            let texts = texts(&golden);
            let mut engine = engine(&model, &options, 2 * texts.concat().len());
            let call = call_options(&options);
            let logits = in_chunks(&mut engine, &texts, &call, 100, &mut Random::new(1));
            let error = max_error(&logits.concat(), &expected.values);
            assert!(error < GOLDEN_TOLERANCE, "{name} {stream}: {error:.1e}");
        }
    }
}

#[test]
fn plain_families_give_the_logits_of_transformers() {
    for directory in golden_directories("families") {
        let golden = Golden::read(&directory.join("expected.safetensors"));
        let texts = texts(&golden);
        let model = Model::load(&directory).unwrap();
        let options = model.config().attention_options(AttentionMode::Full);
        let mut engine = engine(&model, &options, 2 * texts.concat().len() + 100);
        let call = call_options(&options);
        let logits = in_chunks(&mut engine, &texts, &call, 5, &mut Random::new(2)).concat();
        let error = max_error(&logits, &golden.tensor("logits").values);
        assert!(error < 1e-4, "{}: {error:.1e}", directory.display());
    }
}

#[test]
fn long_prompts_are_cut_into_chunks() {
    let model = model(Method::NSA);
    let options = model.config().attention_options(AttentionMode::Sparse);
    let mut engine = engine(&model, &options, 3000);
    let call = call_options(&options);
    let text = ids(3, 800);
    let whole = in_one_call(&mut engine, &text, &call);
    let [a, b] = [engine.add_sequence(), engine.add_sequence()];
    let output = engine.forward(&[(a, &text), (b, &text[..700])], &call, Logits::Last).unwrap();
    let rows = whole.chunks(VOCAB as usize).collect::<Vec<_>>();
    assert_eq!(output.logits.as_slice().unwrap(), [rows[799], rows[699]].concat());
    let queries = 1500 * 2 * 3;
    assert_eq!(output.totals.selections, queries);
    assert!(output.totals.blocks > 2 * queries && output.totals.blocks <= 3 * queries);
    assert!(output.totals.kept_mass > 0.0 && output.totals.kept_mass <= queries as f64);
    assert!(engine.forward(&[(b, &[1])], &call, Logits::None).unwrap().logits.is_empty());
}

#[test]
fn a_budget_by_mass_changes_what_is_read() {
    let model = model(Method::SSA);
    let options = model.config().attention_options(AttentionMode::Sparse);
    let mut engine = engine(&model, &options, 1000);
    let mut run = |budget: PageBudget| {
        let pages = PageOptions { budget, rule: SelectionRule::Exact };
        let call = CallOptions { pages, ..call_options(&options) };
        let id = engine.add_sequence();
        engine.forward(&[(id, &ids(4, 120))], &call, Logits::Last).unwrap().totals
    };
    let few = run(PageBudget::Mass { mass: 0.3, min: 1, max: 30 });
    let many = run(PageBudget::Mass { mass: 0.9, min: 1, max: 30 });
    assert!(few.blocks < many.blocks, "{few:?} {many:?}");
    assert!(many.kept_mass >= 0.9 * many.selections as f64);
    assert_eq!(run(PageBudget::Counts(4)), run(PageBudget::Mass { mass: 1.0, min: 4, max: 4 }));
}

#[test]
fn a_change_of_attention_is_explicit() {
    let model = model(Method::SSA);
    let [full, sparse] = [AttentionMode::Full, AttentionMode::Sparse]
        .map(|mode| call_options(&model.config().attention_options(mode)));
    let options = model.config().attention_options(AttentionMode::Full);
    let mut engine = engine(&model, &options, 1000);
    let text = ids(5, 60);
    let expected = in_one_call(&mut engine, &text, &full);
    let last = &expected[59 * VOCAB as usize..];

    let id = engine.add_sequence();
    engine.forward(&[(id, &text[..59])], &sparse, Logits::None).unwrap();
    let error = engine.forward(&[(id, &text[59..])], &full, Logits::Last).unwrap_err();
    assert!(matches!(error, InferError::Filled { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("filled by sparse attention, 3 blocks, the call asks for full"),
        "{message}"
    );
    let copy = engine.fork(id).unwrap();
    let mut run = |id, fill_change| {
        let call = CallOptions { fill_change, ..full };
        engine.forward(&[(id, &text[59..])], &call, Logits::Last).unwrap().logits.to_vec().unwrap()
    };
    assert_eq!(bits(&run(id, FillChange::Recompute)), bits(last));
    assert_ne!(bits(&run(copy, FillChange::Keep)), bits(last));
    // What the drafts of another attention have filled is gone with them.
    let id = engine.add_sequence();
    engine.forward(&[(id, &text[..50])], &full, Logits::None).unwrap();
    let keep = CallOptions { fill_change: FillChange::Keep, ..sparse };
    engine.forward(&[(id, &text[50..])], &keep, Logits::None).unwrap();
    engine.truncate(id, 50).unwrap();
    let output = engine.forward(&[(id, &text[50..])], &full, Logits::Last).unwrap();
    assert_eq!(bits(output.logits.as_slice().unwrap()), bits(last));
    // Full attention does not depend on the budget.
    let pages = PageOptions { budget: PageBudget::Counts(9), ..full.pages };
    engine.truncate(id, 59).unwrap();
    engine.forward(&[(id, &text[59..])], &CallOptions { pages, ..full }, Logits::Last).unwrap();
}

#[test]
fn impossible_calls_are_refused_and_change_nothing() {
    let model = model(Method::SSA);
    let options = model.config().attention_options(AttentionMode::Sparse);
    let call = call_options(&options);
    let mut engine = engine(&model, &options, 40);
    let id = engine.add_sequence();
    engine.forward(&[(id, &[1, 2, 3])], &call, Logits::None).unwrap();
    let mut refuse = |ids: &[u32]| {
        let error = engine.forward(&[(id, ids)], &call, Logits::Last).unwrap_err();
        assert_eq!(engine.tokens(id), [1, 2, 3]);
        assert_eq!(engine.cache().tokens(id).unwrap(), 3);
        error
    };
    assert!(matches!(refuse(&[]), InferError::NoTokens { .. }));
    assert!(matches!(refuse(&[0, VOCAB]), InferError::Token { token: VOCAB, .. }));
    assert!(matches!(refuse(&[0; 898]), InferError::TooLong { tokens: 901, positions: 900, .. }));
    assert!(matches!(refuse(&[0; 41]), InferError::Kernel(KernelError::CacheFull { .. })));
    let none = PageOptions { budget: PageBudget::Counts(0), ..call.pages };
    let none = CallOptions { pages: none, fill_change: FillChange::Keep, ..call };
    let error = engine.forward(&[(id, &[1])], &none, Logits::Last).unwrap_err().to_string();
    assert!(error.contains("budget"), "{error}");
    assert_eq!(engine.tokens(id), [1, 2, 3]);
    let other = CallOptions::new(&options, 16).unwrap_err();
    assert!(matches!(other, InferError::BlockSize { block_size: 4, page_size: 16 }), "{other}");
    engine.remove_sequence(id).unwrap();
    assert!(matches!(
        engine.forward(&[(id, &[1])], &call, Logits::Last).unwrap_err(),
        InferError::Kernel(KernelError::Argument { argument: "sequence", .. })
    ));
    assert!(engine.forward(&[], &call, Logits::Last).unwrap().logits.is_empty());
}
