//! Greedy texts of plain models are those of transformers, token for token.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use ssa_infer::{CallOptions, Engine, InferenceModel, Logits, NoiseKey, Sampler, SamplingOptions};
use ssa_model::{AttentionMode, Model};
use ssa_testkit::golden_dir;

const PAGE: usize = 4;

/// A prompt and what transformers adds to it.
#[derive(Deserialize)]
struct Text {
    ids: Vec<u32>,
    tokens: Vec<u32>,
}

#[test]
fn texts_are_those_of_transformers() {
    let file = fs::read_to_string(golden_dir().join("greedy/families.json")).unwrap();
    let cases: BTreeMap<String, Vec<Text>> = serde_json::from_str(&file).unwrap();
    assert_eq!(cases.len(), fs::read_dir(golden_dir().join("families")).unwrap().count());
    for (name, texts) in cases {
        let model = Model::load(&golden_dir().join("families").join(&name)).unwrap();
        let options = model.config().attention_options(AttentionMode::Full);
        let call = CallOptions::new(&options, PAGE).unwrap();
        let inference = InferenceModel::new(&model, options.method).unwrap();
        let mut engine = Engine::new(inference, PAGE, 512).unwrap();
        let key = NoiseKey { seed: 0, request: 0 };
        let sampler = Sampler::new(SamplingOptions::GREEDY, key).unwrap();
        for text in texts {
            let (sequence, mut ids) = (engine.add_sequence(), text.ids.clone());
            let mut seen = 0;
            while ids.len() < text.ids.len() + text.tokens.len() {
                let chunk = [(sequence, &ids[seen..])];
                let logits = engine.forward(&chunk, &call, Logits::Last).unwrap().logits;
                seen = ids.len();
                ids.push(sampler.sample(&logits.to_vec().unwrap(), &ids).unwrap());
            }
            assert_eq!(ids[text.ids.len()..], text.tokens, "{name}");
        }
    }
}
