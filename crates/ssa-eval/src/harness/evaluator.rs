//! Asks a model.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use ssa_data::{Decoder, Tokenizer};
use ssa_infer::{
    Budget, CallOptions, Engine, GenerationEngine, GenerationLimits, GenerationObserver,
    GenerationOptions, GenerationRequest, InferError, InferenceModel, NoiseKey, Sampler,
    SamplingOptions, StopStrings, Stopped, generate,
};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{AttentionMode, ModelConfig};

use super::answers::Answer;
use super::prepared::PreparedTask;
use super::request::{PreparedDocument, Request};
use super::scored::Scored;
use super::size::Size;
use crate::Result;

/// Tokens of a prompt that are computed together with others before a text.
const CHUNK_TOKENS: usize = 512;
/// The most sequences at a time: each has tables of its own.
const MOST_SEQUENCES: usize = 256;

/// The attention that a model is evaluated with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InferenceMode {
    /// Full or sparse attention.
    pub mode: AttentionMode,
    /// The budget of sparse attention; `None` for full attention.
    pub budget: Option<Budget>,
}

impl InferenceMode {
    /// Tokens of a page of the cache: the block size of the budget, by default the model's.
    pub(crate) fn page_size(self, config: &ModelConfig) -> usize {
        self.budget.and_then(Budget::block_size).unwrap_or(config.budget.block_size())
    }
}

impl fmt::Display for InferenceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.budget {
            Some(budget) => write!(f, "{} {budget}", self.mode),
            None => self.mode.fmt(f),
        }
    }
}

/// How texts end, besides the strings of a task.
#[derive(Clone, Debug)]
pub struct GenerationSettings {
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// As in [`SamplingOptions::repetition_penalty`].
    pub repetition_penalty: f64,
}

/// A model with its tokenizer.
pub struct Evaluator<'a> {
    /// The model.
    pub model: Arc<InferenceModel>,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Rule for block selection.
    pub rule: SelectionRule,
    /// Tokens of the cache, except for documents that need more.
    pub batch_tokens: usize,
    /// How texts end.
    pub generation: GenerationSettings,
}

/// Documents that are computed together.
struct Batch<'a> {
    documents: Vec<&'a PreparedDocument>,
    size: Size,
}

impl Evaluator<'_> {
    /// The bytes of the cache for a task.
    pub fn cache_bytes(&self, task: &PreparedTask, mode: InferenceMode) -> usize {
        let page_size = self.page_size(mode);
        let capacity = self.capacity(&self.batches(task, 0, page_size));
        capacity.saturating_mul(Engine::bytes_per_token(&self.model, page_size))
    }

    /// Asks all requests of a task but those of the first `skipped` documents. `take` receives the
    /// answers of one document after another.
    ///
    /// # Errors
    /// [`EvalError::Infer`](crate::EvalError::Infer), and what `take` says.
    pub fn run(
        &self,
        task: &PreparedTask,
        mode: InferenceMode,
        skipped: usize,
        take: &mut dyn FnMut(Vec<Answer>) -> Result<()>,
    ) -> Result<()> {
        let page_size = self.page_size(mode);
        let batches = self.batches(task, skipped, page_size);
        let capacity = self.capacity(&batches);
        if capacity == 0 {
            return Ok(());
        }
        let config = self.model.config();
        let options = CallOptions::with_budget(config, mode.mode, mode.budget, self.rule);
        let engine = Engine::new(Arc::clone(&self.model), page_size, capacity)?;
        let mut engine = GenerationEngine::new(engine, options, options);
        for batch in batches {
            let mut scored = Scored::of(&batch.documents);
            scored.score(engine.engine_mut(), &options, MOST_SEQUENCES)?;
            let mut texts = self.texts(task, &mut engine, &batch.documents)?.into_iter();
            for (document, scores) in batch.documents.iter().zip(scored.by_document) {
                let mut scores = scores.into_iter();
                let answers = document.requests.iter().map(|request| match request {
                    Request::Continuation { .. } => {
                        let (log_likelihood, greedy) = scores.next().unwrap_or((f64::NAN, false));
                        Answer::Continuation(log_likelihood, greedy)
                    }
                    Request::Rolling { windows, .. } => {
                        Answer::Rolling(scores.by_ref().take(windows.len()).map(|one| one.0).sum())
                    }
                    Request::Generation { .. } => Answer::Text(texts.next().unwrap_or_default()),
                });
                take(answers.collect())?;
            }
        }
        Ok(())
    }

    fn page_size(&self, mode: InferenceMode) -> usize {
        mode.page_size(self.model.config())
    }

    /// Divides documents into batches; one that is too large is a batch of its own.
    fn batches<'t>(
        &self,
        task: &'t PreparedTask,
        skipped: usize,
        page_size: usize,
    ) -> Vec<Batch<'t>> {
        let mut batches: Vec<Batch<'t>> = Vec::new();
        for document in task.documents.iter().skip(skipped) {
            let size = Size::of_document(document, task.generation.max_tokens, page_size);
            match batches.last_mut() {
                Some(batch)
                    if batch.size.tokens + size.tokens <= self.batch_tokens
                        && batch.size.sequences + size.sequences <= MOST_SEQUENCES =>
                {
                    batch.documents.push(document);
                    batch.size = batch.size.and(size);
                }
                _ => batches.push(Batch { documents: vec![document], size }),
            }
        }
        batches
    }

    /// Tokens of a cache for each of the batches.
    fn capacity(&self, batches: &[Batch<'_>]) -> usize {
        let needed = |batch: &Batch<'_>| {
            let Size { tokens, largest, .. } = batch.size;
            tokens.min(largest.max(self.batch_tokens))
        };
        batches.iter().map(needed).max().unwrap_or(0)
    }

    /// The texts of the requests to generate.
    fn texts(
        &self,
        task: &PreparedTask,
        engine: &mut GenerationEngine,
        documents: &[&PreparedDocument],
    ) -> Result<Vec<String>> {
        let prompts = documents.iter().flat_map(|document| &document.requests);
        let prompts = prompts.filter_map(|request| match request {
            Request::Generation { tokens, .. } => Some(tokens),
            _ => None,
        });
        let sampling = SamplingOptions {
            repetition_penalty: self.generation.repetition_penalty,
            ..SamplingOptions::GREEDY
        };
        let limits = GenerationLimits {
            max_tokens: task.generation.max_tokens,
            context_length: self.model.config().max_position_embeddings,
            eos_token_ids: &self.generation.eos_token_ids,
            vocabulary: self.tokenizer.vocab_size(),
        };
        let mut until = task.generation.until.clone();
        until.extend(self.tokenizer.eos_token());
        until.retain(|stop| !stop.is_empty());
        let mut requests = Vec::new();
        let mut ends = Ends::default();
        for prompt in prompts {
            let sampler = Sampler::new(sampling.clone(), NoiseKey::default());
            let sampler = sampler.map_err(InferError::from)?;
            let sequence = engine.add_sequence();
            requests.push(GenerationRequest::new(sequence, prompt.clone(), sampler, &limits)?);
            ends.texts.push((self.tokenizer.decoder(), StopStrings::new(until.clone())?));
        }
        let options = GenerationOptions { chunk_tokens: CHUNK_TOKENS, drafts: 0 };
        generate(engine, &mut requests, &options, &mut ends)?;
        let mut texts = Vec::with_capacity(requests.len());
        for request in &requests {
            engine.engine_mut().remove_sequence(request.sequence())?;
            let text = self.tokenizer.decode_visible(request.generated())?;
            let end = until.iter().filter_map(|stop| text.find(stop.as_str())).min();
            texts.push(text[..end.unwrap_or(text.len())].to_owned());
        }
        Ok(texts)
    }
}

/// Ends each text at its stop strings.
#[derive(Default)]
struct Ends<'a> {
    texts: Vec<(Decoder<'a>, StopStrings)>,
}

impl GenerationObserver for Ends<'_> {
    fn token(&mut self, request: usize, id: u32) -> ControlFlow<()> {
        let (decoder, stops) = &mut self.texts[request];
        // A token that cannot be decoded is no text; decoding all of them reports it.
        match stops.push(&decoder.push(id).unwrap_or_default()) {
            Stopped::No(_) => ControlFlow::Continue(()),
            Stopped::Yes(_) => ControlFlow::Break(()),
        }
    }
}
