//! Generation with the engine: texts are those that one call over the whole text gives, with and
//! without drafts, alone and in a batch.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::ops::ControlFlow;

use ssa_infer::{
    Budget, CallOptions, Engine, FillChange, GenerationEngine, GenerationLimits,
    GenerationObserver, GenerationOptions, GenerationRequest, GenerationStatistics, InferenceModel,
    Logits, NoiseKey, PageOptions, Sampler, SamplingOptions, SequenceId, generate,
};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{AttentionMode, Model};
use ssa_testkit::golden_dir;

const TOKENS: usize = 60;
const PAGE: usize = 16;

struct Unobserved;

impl GenerationObserver for Unobserved {
    fn token(&mut self, _: usize, _: u32) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A golden model and how it runs.
struct Case {
    model: Model,
    mode: AttentionMode,
    budget: Budget,
    draft_budget: Budget,
}

impl Case {
    fn new(name: &str, mode: AttentionMode, [budget, draft_budget]: [&str; 2]) -> Self {
        let model = Model::load(&golden_dir().join("model").join(name)).unwrap();
        let budgets = [budget, draft_budget].map(|budget| budget.parse().unwrap());
        let [budget, draft_budget] = budgets;
        Self { model, mode, budget, draft_budget }
    }

    fn options(&self, mode: AttentionMode, budget: Budget) -> CallOptions {
        CallOptions {
            mode,
            pages: PageOptions { budget: budget.page_budget(), rule: SelectionRule::Exact },
            window_size: self.model.config().window_size,
            fill_change: FillChange::Refuse,
        }
    }

    fn engine(&self) -> Engine {
        let method = self.model.config().attention_method;
        let model = InferenceModel::new(&self.model, method).unwrap();
        Engine::new(model, PAGE, 4 * 512).unwrap()
    }

    /// A prompt longer than the budgets.
    fn prompt(&self, number: u32) -> Vec<u32> {
        let vocab_size = self.model.config().vocab_size as u32;
        (0..100 + 31 * number).map(|i| (i * i * 7 + i * 3 + number) % vocab_size).collect()
    }

    /// Generates together from the prompts of these numbers.
    fn generate(
        &self,
        sampling: &SamplingOptions,
        numbers: &[u32],
        options: GenerationOptions,
    ) -> (Vec<Vec<u32>>, GenerationStatistics) {
        let mut engine = GenerationEngine::new(
            self.engine(),
            self.options(self.mode, self.budget),
            self.options(AttentionMode::Sparse, self.draft_budget),
        );
        let request = |number: &u32| -> GenerationRequest<SequenceId> {
            let limits = GenerationLimits {
                max_tokens: TOKENS,
                context_length: 512,
                eos_token_ids: &[],
                vocabulary: usize::MAX,
            };
            let sampler = sampler(sampling, *number);
            let sequence = engine.add_sequence();
            GenerationRequest::new(sequence, self.prompt(*number), sampler, &limits).unwrap()
        };
        let mut requests: Vec<_> = numbers.iter().map(request).collect();
        let statistics = generate(&mut engine, &mut requests, &options, &mut Unobserved).unwrap();
        (requests.iter().map(|request| request.generated().to_vec()).collect(), statistics)
    }

    /// Whether each token of a text is the one that the logits of one call over the text give.
    fn check(&self, sampling: &SamplingOptions, number: u32, text: &[u32]) {
        let ids = [&self.prompt(number)[..], text].concat();
        let start = ids.len() - text.len();
        let mut engine = self.engine();
        let sequence = engine.add_sequence();
        let options = self.options(self.mode, self.budget);
        let output = engine.forward(&[(sequence, &ids)], &options, Logits::All).unwrap();
        let logits = output.logits.to_vec().unwrap();
        let rows = logits.chunks_exact(self.model.config().vocab_size);
        let sampler = sampler(sampling, number);
        for (position, row) in rows.enumerate().skip(start - 1).take(text.len()) {
            let expected = sampler.sample(row, &ids[..=position]).unwrap();
            assert_eq!(ids[position + 1], expected, "token {position}");
        }
    }
}

fn sampler(sampling: &SamplingOptions, number: u32) -> Sampler {
    Sampler::new(sampling.clone(), NoiseKey { seed: 5, request: number.into() }).unwrap()
}

fn sampled() -> SamplingOptions {
    SamplingOptions { temperature: 0.7, top_p: 0.98, ..SamplingOptions::GREEDY }
}

fn cases() -> Vec<Case> {
    use AttentionMode::{Full, Sparse};
    [
        ("full_T200", Full, ["16x2", "16x1"]),
        ("ssa_bs16_k4_T200", Full, ["16x4", "16x1"]),
        ("ssa_bs16_k4_T200", Full, ["16x4", "mass=0.8,1..3"]),
        ("ssa_bs16_k4_T200", Sparse, ["16x3", "16x3"]),
        ("ssa_bs16_k4_T200", Sparse, ["mass=0.7,2..5", "16x3"]),
        ("moba_bs16_k4_T200", Sparse, ["16x4", "16x4"]),
        ("nsa_bs16_k4_w32_T200", Sparse, ["16x4", "16x4"]),
    ]
    .into_iter()
    .map(|(name, mode, budgets)| Case::new(name, mode, budgets))
    .collect()
}

#[test]
fn texts_are_those_of_one_call_over_the_whole_text() {
    let options = GenerationOptions { chunk_tokens: 48, drafts: 0 };
    for case in cases() {
        for sampling in [SamplingOptions::GREEDY, sampled()] {
            let (texts, _) = case.generate(&sampling, &[0], options);
            case.check(&sampling, 0, &texts[0]);
        }
    }
}

#[test]
fn texts_do_not_depend_on_the_batch() {
    for case in cases() {
        let options = GenerationOptions { chunk_tokens: 70, drafts: 0 };
        let (together, _) = case.generate(&sampled(), &[2, 0, 1], options);
        for (text, number) in together.iter().zip([2, 0, 1]) {
            let options = GenerationOptions { chunk_tokens: 512, drafts: 0 };
            let (alone, _) = case.generate(&sampled(), &[number], options);
            assert_eq!(*text, alone[0]);
        }
    }
}

#[test]
fn drafts_do_not_change_a_text() {
    let (mut drafted, mut accepted) = (0, 0);
    for case in cases().into_iter().filter(|case| case.mode == AttentionMode::Full) {
        for sampling in [SamplingOptions::GREEDY, sampled()] {
            let options = GenerationOptions { chunk_tokens: 64, drafts: 0 };
            let (expected, _) = case.generate(&sampling, &[0, 1], options);
            for drafts in [1, 4, 19] {
                let options = GenerationOptions { drafts, ..options };
                let (texts, statistics) = case.generate(&sampling, &[0, 1], options);
                assert_eq!(texts, expected, "{drafts} drafts, {sampling:?}");
                drafted += statistics.drafted;
                accepted += statistics.accepted;
            }
        }
    }
    // Some were accepted and some were not.
    assert!(0 < accepted && accepted < drafted, "{accepted} of {drafted}");
}
