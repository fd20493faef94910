//! Against a forward pass for every scored token.

use ssa_data::{Document, Tokenizer};
use ssa_infer::InferenceModel;
use ssa_kernels::Documents;
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_kernels::ops::cross_entropy::linear_cross_entropy_losses;
use ssa_model::{
    AttentionMode, AttentionOptions, Input, Method, Model, ModelConfig, ModelSettings, SparseBudget,
};

use super::*;
use crate::harness::InferenceMode;

fn model() -> Model {
    let settings = ModelSettings {
        vocab_size: 257,
        hidden_size: 24,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        rope_theta: 10_000.0,
        max_position_embeddings: 16,
        initializer_range: 0.4,
        budget: SparseBudget::new(4, 2).unwrap(),
        attention_method: Method::SSA,
        bos_token_id: None,
        eos_token_id: vec![256],
        ..ModelSettings::ssa_1b()
    };
    Model::init(ModelConfig::new(settings).unwrap(), 3).unwrap()
}

fn document(length: usize) -> Document {
    let byte = |position: usize| b'a' + ((position * 7 + position * position / 5) % 23) as u8;
    Document { name: length.to_string(), text: (0..length).map(byte).collect() }
}

fn text(lengths: &[usize], stride: usize, most: Option<usize>) -> Result<SlidingText, String> {
    let documents = [50, 12, 30].map(document);
    let settings = WindowSettings { lengths: lengths.to_vec(), stride, most };
    SlidingText::new(&documents, &Tokenizer::Bytes, settings).map_err(|error| error.to_string())
}

const FULL: InferenceMode = InferenceMode { mode: AttentionMode::Full, budget: None };

fn sparse(budget: &str) -> InferenceMode {
    InferenceMode { mode: AttentionMode::Sparse, budget: Some(budget.parse().unwrap()) }
}

/// The negative log-likelihood of a token after a context, by a forward pass of the context.
fn naive(model: &Model, context: &[u32], target: u32, mode: InferenceMode) -> f64 {
    let mut options: AttentionOptions = model.config().attention_options(mode.mode);
    if let Some(ssa_infer::Budget::Blocks(budget)) = mode.budget {
        options.selection.budget = budget;
    }
    let documents = Documents::from_cu_seqlens(vec![0, context.len()]).unwrap();
    let input = Input::new(context.to_vec(), 1, context.len(), documents).unwrap();
    let hidden = model.forward(&input, &options).unwrap();
    let mut labels = vec![ssa_data::IGNORE_INDEX; context.len()];
    *labels.last_mut().unwrap() = target as i32;
    let losses = linear_cross_entropy_losses(&hidden, model.parameters().head(), &labels).unwrap();
    f64::from(*losses.last().unwrap())
}

#[test]
fn every_token_has_the_likelihood_of_its_own_forward_pass() {
    let model = model();
    let text = text(&[10, 24], 6, None).unwrap();
    let run = SlidingRun {
        model: &InferenceModel::new(&model, Method::SSA).unwrap(),
        text: &text,
        modes: &[FULL, sparse("4x2"), sparse("8x1")],
        ropes: RopeMethod::ALL,
        rope_settings: RopeSettings { original_length: 16, factor: None },
        rule: SelectionRule::Exact,
        batch_tokens: 40,
    };
    let parts = run.parts().unwrap();
    // No scaling at 10 tokens, four kinds at 24, each with three attentions.
    assert_eq!(parts.len(), 3 + 4 * 3);
    let mut sums = Vec::new();
    for part in &parts {
        let own = Model::init(part.config.clone(), 3).unwrap();
        let mut scores = Vec::new();
        run.run(part, 0, &mut |score| {
            scores.push(score);
            Ok(())
        })
        .unwrap();
        let mut resumed = Vec::new();
        run.run(part, 3, &mut |score| {
            resumed.push(score);
            Ok(())
        })
        .unwrap();
        assert_eq!(scores[3..], resumed, "a window does not depend on those before it");
        let mut expected = Vec::new();
        for document in [50, 30].map(document) {
            let ids: Vec<u32> = document.text.iter().map(|&byte| byte.into()).collect();
            for start in (18..ids.len()).step_by(6) {
                let targets = start..ids.len().min(start + 6);
                let first = start + 6 - part.length;
                let nll = targets.map(|at| naive(&own, &ids[first..at], ids[at], part.mode));
                expected.push(-nll.sum::<f64>());
            }
        }
        assert_eq!(scores.len(), expected.len());
        for (score, expected) in scores.iter().zip(&expected) {
            assert!((score - expected).abs() < 1e-4, "{part:?}: {score}, {expected}");
        }
        sums.push((part.clone(), scores.iter().sum::<f64>()));
    }
    check_results(&run, &sums);
}

fn check_results(run: &SlidingRun<'_>, sums: &[(SlidingPart, f64)]) {
    let found = run.results(sums).unwrap();
    assert_eq!((found.scored_tokens, found.bytes), (32 + 12, 44));
    assert_eq!((found.documents, found.short_documents, found.windows), (2, 1, 6 + 2));
    assert_eq!(found.results.len(), 4 * 3 * 2);
    for result in &found.results {
        let perplexity = (result.bits_per_byte * std::f64::consts::LN_2).exp();
        assert!((result.perplexity - perplexity).abs() < 1e-9 * perplexity, "bytes are tokens");
    }
    let at = |rope, length| {
        let is = |it: &&SlidingResult| it.rope == rope && it.length == length;
        found.results.iter().find(is).unwrap().nats_per_token
    };
    assert_eq!(at(RopeMethod::None, 10), at(RopeMethod::Yarn, 10), "a short window is not scaled");
    assert_ne!(at(RopeMethod::None, 24), at(RopeMethod::Yarn, 24));
    let table = sliding_table(&found, |result| format!("{:.3}", result.perplexity));
    assert_eq!((table.columns().len(), table.rows().len()), (4, 12));
    let facts = SlidingFacts {
        model: "tiny".to_owned(),
        data: "text".to_owned(),
        provenance: vec![("device", "cpu".to_owned())],
    };
    let page = render(&found, facts).unwrap();
    assert_eq!(page.matches("<figure").count(), 1 + 4, "all scalings, and each of them");
    assert!(page.contains("<svg") && page.contains("16 tokens"), "the context is named");
}

#[test]
fn all_lengths_score_the_same_tokens() {
    let text = text(&[8, 13, 21], 5, None).unwrap();
    let scored = |length: usize| -> Vec<u32> {
        let windows = text.spans().iter().map(|span| text.window(span, length));
        windows.flat_map(|window| window.targets.to_vec()).collect()
    };
    assert_eq!(scored(8), scored(21));
    assert_eq!(scored(13).len(), text.scored());
    for length in [8, 13, 21] {
        for span in text.spans() {
            let window = text.window(span, length);
            let context = window.ids.len() + 1 - window.targets.len();
            assert_eq!(context, length - 5, "the first scored token has the whole context");
        }
    }
}

#[test]
fn some_windows_are_spread_evenly() {
    let all = text(&[20], 4, None).unwrap();
    let some = text(&[20], 4, Some(4)).unwrap();
    assert_eq!((all.windows(), some.windows()), (9 + 4, 4));
    let expected: Vec<_> = [0, 3, 6, 9].iter().map(|&index| all.spans()[index].clone()).collect();
    assert_eq!(some.spans(), expected);
}

#[test]
fn impossible_settings_name_their_flag() {
    let error = text(&[8, 16], 8, None).unwrap_err();
    assert!(error.starts_with("--stride 8: must be shorter than"), "{error}");
    let error = text(&[64], 8, None).unwrap_err();
    assert!(error.starts_with("--data: no document has more than 56 tokens"), "{error}");
    assert!(error.contains("the longest has 50\nhint: pass shorter --lengths"), "{error}");
    let settings = ModelSettings {
        rope_scaling: ssa_model::RopeScaling::Linear { factor: 2.0 },
        ..model().config().settings()
    };
    let scaled = ModelConfig::new(settings).unwrap();
    let settings = RopeSettings { original_length: 16, factor: Some(4.0) };
    let error = RopeMethod::Yarn.config(&scaled, 64, &settings).unwrap_err().to_string();
    assert!(error.contains("--rope yarn") && error.contains("--rope none"), "{error}");
    assert_eq!(
        RopeMethod::None.config(&scaled, 64, &settings).unwrap().rope_scaling,
        ssa_model::RopeScaling::Linear { factor: 2.0 }
    );
}
