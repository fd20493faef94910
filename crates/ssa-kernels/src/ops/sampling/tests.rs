use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::ops::testing::assert_refused;

fn sampler(options: SamplingOptions, seed: u64) -> Sampler {
    Sampler::new(options, NoiseKey { seed, request: 0 }).unwrap()
}

const SAMPLED: SamplingOptions = SamplingOptions { temperature: 1.0, ..SamplingOptions::GREEDY };

#[test]
fn greedy_takes_the_first_maximum() {
    let greedy = sampler(SamplingOptions::GREEDY, 0);
    assert_eq!(greedy.sample(&[0.0, 2.0, -1.0, 2.0], &[]).unwrap(), 1);
    let penalty = SamplingOptions { repetition_penalty: 2.0, ..SamplingOptions::GREEDY };
    let penalized = sampler(penalty, 0);
    assert_eq!(penalized.sample(&[0.0, 2.0, -1.0, 1.5], &[1, 1]).unwrap(), 3);
    assert_eq!(penalized.sample(&[-3.0, -2.0, -3.5], &[1, 9]).unwrap(), 0, "made smaller");
}

#[test]
fn rows_without_logits_are_refused() {
    for rows in [0, 2] {
        let logits = Tensor::zeros([rows, 0]).unwrap();
        assert_refused(draw_tokens(&logits, &vec![(Draw::GREEDY, &[][..]); rows]), "logits");
    }
    let logits = Tensor::from_vec(vec![0.0, 2.0, 1.0, 0.0], [2, 2]).unwrap();
    let drawn = draw_tokens(&logits, &[(Draw::GREEDY, &[][..]); 2]).unwrap();
    assert_eq!(drawn.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 0]);
    assert_refused(draw_tokens(&logits, &[]), "rows");
}

#[test]
fn logits_that_are_no_numbers_are_errors() {
    let refused = |options: SamplingOptions, logits: &[f32]| {
        sampler(options, 0).sample(logits, &[1, 2]).unwrap_err().to_string()
    };
    for options in [SamplingOptions::GREEDY, SAMPLED] {
        let nan = refused(options.clone(), &[0.0, f32::NAN]);
        assert!(nan.starts_with("the logits after 2 tokens have NaN\nhint: "), "{nan}");
        assert!(refused(options.clone(), &[0.0, f32::INFINITY]).contains("have infinity"));
        let none = refused(options.clone(), &[f32::NEG_INFINITY; 2]);
        assert!(none.contains("are all negative infinity"), "{none}");
        assert!(refused(options.clone(), &[]).contains("are empty"));
        let possible = sampler(options, 0).sample(&[f32::NEG_INFINITY, 0.0], &[]);
        assert_eq!(possible.unwrap(), 1);
    }
}

#[test]
fn impossible_settings_are_named() {
    for (options, message) in [
        (
            SamplingOptions { temperature: -0.5, ..SAMPLED },
            "temperature is -0.5, expected a number from 0 to 100",
        ),
        (SamplingOptions { temperature: f64::NAN, ..SAMPLED }, "temperature is NaN"),
        (SamplingOptions { top_p: 0.0, ..SAMPLED }, "top_p is 0, expected a number above 0"),
        (SamplingOptions { min_p: 1.1, ..SAMPLED }, "min_p is 1.1, expected a number from 0 to 1"),
        (SamplingOptions { repetition_penalty: 0.0, ..SAMPLED }, "repetition_penalty is 0"),
    ] {
        let error = Sampler::new(options, NoiseKey::default()).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

/// `tests/python/sampling.py` wrote what transformers makes of the same logits.
#[test]
fn probabilities_are_those_of_transformers() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sampling/transformers.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 30, "{} cases", cases.len());
    for case in cases {
        let numbers = |key: &str| {
            let numbers = case[key].as_array().unwrap().iter();
            numbers.map(|number| number.as_f64().unwrap()).collect::<Vec<_>>()
        };
        let given = &case["options"];
        let number = |key: &str, off: f64| given[key].as_f64().unwrap_or(off);
        let options = SamplingOptions {
            temperature: number("temperature", 1.0),
            top_k: number("top_k", 0.0) as usize,
            top_p: number("top_p", 1.0),
            min_p: number("min_p", 0.0),
            repetition_penalty: number("repetition_penalty", 1.0),
        };
        let ids: Vec<u32> = numbers("ids").into_iter().map(|id| id as u32).collect();
        let logits: Vec<f32> = numbers("logits").into_iter().map(|logit| logit as f32).collect();
        let logits = penalize(&logits, &ids, options.repetition_penalty as f32);
        let (_, largest) = first_maximum(&logits).unwrap();
        let candidates = filters::candidates(&logits, largest, &options);
        let total: f64 = candidates.iter().map(|candidate| candidate.log_weight.exp()).sum();
        let mut probabilities = vec![0.0; logits.len()];
        for candidate in candidates {
            probabilities[candidate.id as usize] = candidate.log_weight.exp() / total;
        }
        for (ours, theirs) in probabilities.iter().zip(numbers("probabilities")) {
            assert!((ours - theirs).abs() < 1e-6, "{given}: {ours} and {theirs}");
            assert_eq!(*ours == 0.0, theirs == 0.0, "{given}");
        }
    }
}

/// The frequencies of a race are the probabilities (chi-square with 7 degrees of freedom).
#[test]
fn tokens_are_as_frequent_as_their_probabilities() {
    const DRAWS: usize = 100_000;
    let logits: Vec<f32> = (0..8).map(|token| (token as f32 * 1.7).sin() * 2.0).collect();
    let weights: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) / 0.8).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut counts = [0_u32; 8];
    let options = SamplingOptions { temperature: 0.8, ..SAMPLED };
    let mut ids = Vec::new();
    for position in 0..DRAWS {
        let sampler = sampler(options.clone(), (position / 1000) as u64);
        ids.resize(position % 1000, 0);
        counts[sampler.sample(&logits, &ids).unwrap() as usize] += 1;
    }
    let chi_square: f64 = counts
        .iter()
        .zip(&weights)
        .map(|(&count, weight)| {
            let expected = DRAWS as f64 * weight / total;
            (f64::from(count) - expected).powi(2) / expected
        })
        .sum();
    // The 99.9th percentile.
    assert!(chi_square < 24.3, "{chi_square}");
}

proptest! {
    /// Dropping the surely improbable tokens first changes nothing, and equal scores are kept by
    /// their ids.
    #[test]
    fn top_p_is_its_definition(
        scores in prop::collection::vec((-6_i32..6).prop_map(|n| n as f32 / 2.0), 1..40),
        p in 0.01_f64..1.0,
    ) {
        let options = SamplingOptions { top_p: p, ..SAMPLED };
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut kept: Vec<u32> =
            filters::candidates(&scores, largest, &options).iter().map(|c| c.id).collect();
        kept.sort_unstable();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        let weight = |id: usize| f64::from(scores[id] - largest).exp();
        let total: f64 = (0..scores.len()).map(weight).sum();
        let mut sum = 0.0;
        let mut expected: Vec<u32> = order
            .iter()
            .enumerate()
            .filter(|&(rank, &id)| {
                sum += weight(id);
                sum > (1.0 - p) * total || rank + 1 == order.len()
            })
            .map(|(_, &id)| id as u32)
            .collect();
        expected.sort_unstable();
        prop_assert_eq!(kept, expected);
    }
}
