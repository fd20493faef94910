//! The loop on a toy model, whose logits are a hash of the tokens that its cache holds.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::{NoiseKey, Sampler, SamplingOptions};

const VOCABULARY: usize = 6;
const CONTEXT: usize = 64;
const EOS: u32 = 5;

/// The token at a place of the cache, and the pass that wrote it.
type Entry = (u32, Pass);

/// A model that depends on the whole cache, so that a wrong entry is seen.
struct Toy {
    sequences: Vec<Vec<Entry>>,
    /// How far the logits of a draft are from those of the target; 0 for equal ones.
    draft_error: f32,
    largest_call: usize,
    calls: usize,
    /// What the next call was announced to compute.
    expected: Vec<(usize, u32)>,
}

impl Toy {
    fn new(sequences: usize, draft_error: f32) -> Self {
        Self {
            sequences: vec![Vec::new(); sequences],
            draft_error,
            largest_call: 0,
            calls: 0,
            expected: Vec::new(),
        }
    }

    /// A call that was announced comes, but for texts and drafts that ended at the last one.
    fn check_expected(&mut self, chunks: &[Chunk<'_, usize>]) {
        for (sequence, id) in std::mem::take(&mut self.expected) {
            let chunk = chunks.iter().find(|chunk| chunk.sequence == sequence);
            assert!(id == EOS || chunk.is_none_or(|chunk| chunk.new_ids() == [id]));
        }
    }

    /// Logits that follow these entries. The target sees who wrote each of them.
    fn logits(&self, entries: &[Entry], pass: Pass) -> Vec<f32> {
        let hash = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            let ids: Vec<_> =
                entries.iter().map(|(id, pass)| (id, *pass == Pass::Target)).collect();
            // A draft may have written what a draft reads.
            let ids: Vec<_> = ids.iter().map(|(id, by)| (id, *by || pass == Pass::Draft)).collect();
            (ids, salt).hash(&mut hasher);
            (hasher.finish() >> 40) as f32 / (1 << 24) as f32
        };
        let token = |token: u64| {
            let error =
                if pass == Pass::Draft { self.draft_error * hash(token + 100) } else { 0.0 };
            3.0 * hash(token) + error - if token == u64::from(EOS) { 2.0 } else { 0.0 }
        };
        (0..VOCABULARY as u64).map(token).collect()
    }
}

impl CachedModel for Toy {
    type Sequence = usize;

    fn cached(&self, sequence: usize) -> Result<usize> {
        Ok(self.sequences[sequence].len())
    }

    fn forward(
        &mut self,
        chunks: &[Chunk<'_, usize>],
        pass: Pass,
        continues: bool,
    ) -> Result<Vec<u32>> {
        self.check_expected(chunks);
        self.calls += 1;
        let tokens = chunks.iter().map(|chunk| chunk.new_ids().len());
        self.largest_call = self.largest_call.max(tokens.sum());
        let mut drawn = Vec::new();
        for chunk in chunks {
            assert!(!chunk.new_ids().is_empty());
            assert_eq!(chunk.cached, self.sequences[chunk.sequence].len());
            let mut rows = Vec::new();
            for (index, &id) in chunk.new_ids().iter().enumerate() {
                self.sequences[chunk.sequence].push((id, pass));
                let entries = &self.sequences[chunk.sequence];
                assert!(entries.len() <= CONTEXT);
                if index + chunk.draws >= chunk.new_ids().len() {
                    rows.extend(self.logits(entries, pass));
                }
            }
            drawn.extend(chunk.draw_tokens(&rows, VOCABULARY)?);
        }
        if continues {
            self.expected = chunks.iter().map(|chunk| chunk.sequence).zip(drawn.clone()).collect();
        }
        Ok(drawn)
    }

    fn truncate(&mut self, sequence: usize, tokens: usize) -> Result<()> {
        assert!(tokens <= self.sequences[sequence].len());
        self.sequences[sequence].truncate(tokens);
        Ok(())
    }
}

/// Collects tokens, and ends a request at one of them.
#[derive(Default)]
struct Collected {
    tokens: Vec<Vec<u32>>,
    last: Option<u32>,
}

impl GenerationObserver for Collected {
    fn token(&mut self, request: usize, id: u32) -> ControlFlow<()> {
        self.tokens.resize(self.tokens.len().max(request + 1), Vec::new());
        self.tokens[request].push(id);
        let last = self.last == Some(id);
        if last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn options(drafts: usize) -> GenerationOptions {
    GenerationOptions { chunk_tokens: 8, drafts }
}

fn limits() -> GenerationLimits<'static> {
    GenerationLimits {
        max_tokens: 20,
        context_length: CONTEXT,
        eos_token_ids: &[EOS],
        vocabulary: VOCABULARY,
    }
}

fn sampled(temperature: f64) -> SamplingOptions {
    SamplingOptions { temperature, repetition_penalty: 1.05, ..SamplingOptions::GREEDY }
}

fn request(sequence: usize, prompt: &[u32], temperature: f64) -> GenerationRequest<usize> {
    let noise = NoiseKey { seed: 11, request: prompt[0].into() };
    let sampler = Sampler::new(sampled(temperature), noise).unwrap();
    GenerationRequest::new(sequence, prompt.to_vec(), sampler, &limits()).unwrap()
}

/// The tokens after a prompt, by the definition: one call each on the whole text.
fn expected(prompt: &[u32], temperature: f64) -> Vec<u32> {
    let toy = Toy::new(0, 0.0);
    let sampler = request(0, prompt, temperature).sampler;
    let mut ids = prompt.to_vec();
    for _ in 0..limits().max_tokens {
        let entries: Vec<Entry> = ids.iter().map(|&id| (id, Pass::Target)).collect();
        ids.push(sampler.sample(&toy.logits(&entries, Pass::Target), &ids).unwrap());
        if ids.ends_with(&[EOS]) {
            break;
        }
    }
    ids.split_off(prompt.len())
}

#[test]
fn texts_depend_on_neither_drafts_nor_batch_nor_chunks() {
    let prompts: Vec<Vec<u32>> = (0..5_u32)
        .map(|number| (0..1 + 7 * number).map(|id| (id * 7 + number) % 5).collect())
        .collect();
    for temperature in [0.0, 1.0] {
        let texts: Vec<_> = prompts.iter().map(|prompt| expected(prompt, temperature)).collect();
        for (drafts, draft_error) in [(0, 0.0), (1, 0.3), (4, 0.0), (4, 0.5), (7, 9.0)] {
            for chunk_tokens in [1, 8, 100] {
                let options = GenerationOptions { chunk_tokens, drafts };
                let mut toy = Toy::new(prompts.len(), draft_error);
                let mut requests: Vec<_> = prompts
                    .iter()
                    .enumerate()
                    .map(|(sequence, prompt)| request(sequence, prompt, temperature))
                    .collect();
                let mut collected = Collected::default();
                generate(&mut toy, &mut requests, &options, &mut collected).unwrap();
                for (index, (request, text)) in requests.iter().zip(&texts).enumerate() {
                    assert_eq!(request.generated(), text, "{drafts} drafts, {chunk_tokens}");
                    let shown = text.strip_suffix(&[EOS]).unwrap_or(text);
                    assert_eq!(collected.tokens[index], shown);
                    let eos = text.ends_with(&[EOS]);
                    let reason = if eos { FinishReason::Eos } else { FinishReason::MaxTokens };
                    assert_eq!(request.finished(), Some(reason));
                    // The cache is that of the target, whatever was drafted.
                    let cache: Vec<Entry> =
                        request.ids().iter().map(|&id| (id, Pass::Target)).collect();
                    assert_eq!(toy.sequences[index], cache[..cache.len() - 1]);
                }
                let most = chunk_tokens.max(5) + 5 * drafts;
                assert!(toy.largest_call <= most, "{} tokens in a call", toy.largest_call);
            }
        }
    }
}

#[test]
fn drafts_of_the_target_itself_are_all_accepted() {
    let run = |drafts, draft_error| {
        let mut toy = Toy::new(1, draft_error);
        let mut requests = [request(0, &[2, 1], 1.0)];
        let observer = &mut Collected::default();
        let statistics = generate(&mut toy, &mut requests, &options(drafts), observer).unwrap();
        assert_eq!(statistics.generated, requests[0].generated().len());
        assert_eq!((statistics.prefilled, statistics.decoded), (2, statistics.generated - 1));
        statistics
    };
    let exact = run(4, 0.0);
    assert_eq!(exact.acceptance(), Some(1.0));
    assert_eq!(run(0, 0.0).acceptance(), None);
    let near = run(4, 0.2).acceptance().unwrap();
    assert!(near > 0.5, "{near}");
}

/// Speculation draws from the target's distribution: of many seeds, the pairs of tokens that follow
/// a prompt are as frequent as their probabilities say (chi-square with 35 degrees of freedom).
#[test]
fn speculation_draws_from_the_distribution_of_the_target() {
    const SEEDS: u64 = 40_000;
    let prompt = [3, 1, 4];
    let mut counts = [[0_u64; VOCABULARY]; VOCABULARY];
    let mut statistics = GenerationStatistics::default();
    for seed in 0..SEEDS {
        let mut toy = Toy::new(1, 1.5);
        let options = SamplingOptions { temperature: 1.0, ..SamplingOptions::GREEDY };
        let sampler = Sampler::new(options, NoiseKey { seed, request: 0 }).unwrap();
        let limits = GenerationLimits { max_tokens: 3, eos_token_ids: &[], ..limits() };
        let request = GenerationRequest::new(0, prompt.to_vec(), sampler, &limits).unwrap();
        let mut requests = [request];
        let observer = &mut Collected::default();
        let run = generate(&mut toy, &mut requests, &self::options(2), observer).unwrap();
        statistics.drafted += run.drafted;
        statistics.accepted += run.accepted;
        let [_, first, second] = requests[0].generated() else { panic!("three tokens") };
        counts[*first as usize][*second as usize] += 1;
    }
    let acceptance = statistics.acceptance().unwrap();
    assert!((0.3..0.95).contains(&acceptance), "drafts differ at times: {acceptance}");

    // The same probabilities, summed over the first token.
    let toy = Toy::new(0, 0.0);
    let probabilities = |ids: &[u32]| -> Vec<f64> {
        let entries: Vec<Entry> = ids.iter().map(|&id| (id, Pass::Target)).collect();
        let logits = toy.logits(&entries, Pass::Target);
        let weights: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    };
    let mut expected = [[0.0; VOCABULARY]; VOCABULARY];
    let tokens = 0..VOCABULARY as u32;
    for (a, p) in tokens.clone().zip(probabilities(&prompt)) {
        let ids = [&prompt[..], &[a]].concat();
        for (b, q) in tokens.clone().zip(probabilities(&ids)) {
            let ids = [&ids[..], &[b]].concat();
            for (c, r) in tokens.clone().zip(probabilities(&ids)) {
                expected[b as usize][c as usize] += p * q * r * SEEDS as f64;
            }
        }
    }
    let pairs = counts.iter().flatten().zip(expected.iter().flatten());
    let chi_square: f64 =
        pairs.map(|(&count, expected)| (count as f64 - expected).powi(2) / expected).sum();
    // The 99.9th percentile.
    assert!(chi_square < 66.6, "{chi_square}");
}

#[test]
fn a_request_ends_where_the_observer_says() {
    for drafts in [0, 4] {
        let text = expected(&[2, 1], 1.0);
        let last = text[3];
        let end = text.iter().position(|&id| id == last).unwrap();
        let mut toy = Toy::new(1, 0.0);
        let mut requests = [request(0, &[2, 1], 1.0)];
        let mut observer = Collected { last: Some(last), ..Collected::default() };
        generate(&mut toy, &mut requests, &options(drafts), &mut observer).unwrap();
        assert_eq!(requests[0].generated(), &text[..=end]);
        assert_eq!(requests[0].finished(), Some(FinishReason::Stop));
        assert!(toy.sequences[0].len() < requests[0].ids().len());

        // The sequence can be continued: only the rest is computed.
        let before = toy.sequences[0].len();
        let prompt = [requests[0].ids(), &[0, 1, 2]].concat();
        let limits = GenerationLimits { max_tokens: 1, ..limits() };
        let sampler = requests[0].sampler.clone();
        let request = GenerationRequest::new(0, prompt, sampler, &limits).unwrap();
        let observer = &mut Collected::default();
        let statistics = generate(&mut toy, &mut [request], &options(drafts), observer).unwrap();
        assert_eq!(statistics.prefilled, end + 1 + 2 + 3 - before);
    }
}

#[test]
fn the_context_limits_a_text() {
    let mut toy = Toy::new(1, 0.0);
    let sampler = Sampler::new(SamplingOptions::GREEDY, NoiseKey::default()).unwrap();
    let limits = GenerationLimits { max_tokens: usize::MAX, eos_token_ids: &[], ..limits() };
    let request = |prompt| {
        GenerationRequest::new(0, prompt, sampler.clone(), &limits).map(|request| [request])
    };
    let mut requests = request(vec![1; CONTEXT - 5]).unwrap();
    generate(&mut toy, &mut requests, &options(3), &mut Collected::default()).unwrap();
    assert_eq!(requests[0].ids().len(), CONTEXT);
    assert_eq!(requests[0].finished(), Some(FinishReason::Context));
    let error = request(vec![1; CONTEXT]).unwrap_err().to_string();
    assert_eq!(error, "the prompt has 64 tokens, and the model's context has room for 63");
    let error = request(vec![]).unwrap_err().to_string();
    assert!(error.starts_with("the prompt has no tokens"), "{error}");
}

#[test]
fn tokens_beyond_the_vocabulary_of_the_tokenizer_are_not_drawn() {
    let sampler = Sampler::new(sampled(1.0), NoiseKey::default()).unwrap();
    let limits = GenerationLimits { vocabulary: 2, max_tokens: 30, ..limits() };
    let mut requests = [GenerationRequest::new(0, vec![4], sampler, &limits).unwrap()];
    let mut toy = Toy::new(1, 0.0);
    generate(&mut toy, &mut requests, &options(2), &mut Collected::default()).unwrap();
    assert!(requests[0].generated().iter().all(|&id| id < 2));
}
