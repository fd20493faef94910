//! Steps that are recorded once and replayed, on a GPU.

use ssa_kernels::kv_cache::SequenceId;
use ssa_kernels::ops::step::{StepSequence, StepSizes};
use ssa_kernels::{Device, Gpu, KernelError, Tensor};

use super::ahead::{RESERVED_TOKENS, StepAhead};
use super::draw_request::DrawRequest;
use super::{CallOutput, Engine};
use crate::step::{DecodingStep, StepDraws, StepKey, StepResults, StepWork};
use crate::{
    CallOptions, Draw, FillChange, FilledBy, InferError, MOST_STEP_SEQUENCES, Result,
    SelectionTotals,
};

/// Steps that an engine keeps: batches that grow or shrink, in both modes of attention.
const STEPS: usize = 8;
/// Recorded steps are for sequences of a power of two of tokens, at least so many.
const LEAST_STEP_TOKENS: usize = 1024;

impl Engine {
    /// Whether [`Engine::draw`] can compute these tokens: on a GPU, the same number of each
    /// sequence, and few in all.
    pub fn can_draw(&self, requests: &[DrawRequest<'_>]) -> bool {
        let tokens_each = requests.first().map_or(0, |request| request.ids.len());
        matches!(self.cache.device(), Device::Cuda(_))
            && tokens_each * requests.len() <= MOST_STEP_SEQUENCES
            && requests.iter().all(|request| request.ids.len() == tokens_each)
    }

    /// Extends sequences and draws the token that follows each new token, on a GPU: the tokens of
    /// the first request, then those of the second, and so on. With `continues`, the next call is
    /// expected to extend the same sequences by what this one draws, and begins to be computed.
    ///
    /// # Errors
    /// As [`Engine::forward`]; [`InferError::Sampling`] if no token can be drawn;
    /// [`InferError::Kernel`] on the CPU.
    pub fn draw(
        &mut self,
        requests: &[DrawRequest<'_>],
        options: &CallOptions,
        continues: bool,
    ) -> Result<(Vec<u32>, SelectionTotals)> {
        let chunks: Vec<_> = requests.iter().map(|request| (request.id, request.ids)).collect();
        self.or_undone(&chunks, |engine| engine.try_draw(requests, options, continues))
    }

    fn try_draw(
        &mut self,
        requests: &[DrawRequest<'_>],
        options: &CallOptions,
        continues: bool,
    ) -> Result<(Vec<u32>, SelectionTotals)> {
        let results = match self.take_ahead(requests, options)? {
            Some(results) => results,
            None => self.queue_draw(requests, options, continues)?,
        };
        let filled_by = options.filled_by(self.model.method(), self.model.config());
        self.add_tokens(requests, filled_by);
        let next = if continues { self.queue_ahead(requests)? } else { None };
        let (tokens, totals) = results.wait()?;
        match next {
            Some(next) => self.ahead = Some(StepAhead::new(requests, &tokens, options, next)),
            // Tokens may be reserved for steps that are not coming.
            None => {
                for request in requests {
                    let tokens = self.tokens(request.id).len();
                    self.cache.truncate(request.id, tokens)?;
                }
            }
        }
        Ok((tokens, totals))
    }

    /// Queues the step that computes the tokens of requests.
    fn queue_draw(
        &mut self,
        requests: &[DrawRequest<'_>],
        options: &CallOptions,
        continues: bool,
    ) -> Result<StepResults> {
        let chunks: Vec<_> = requests.iter().map(|request| (request.id, request.ids)).collect();
        self.admit(&chunks, options)?;
        let tokens_each = requests.first().map_or(0, |request| request.ids.len());
        let longest = chunks.iter().map(|(id, _)| self.tokens(*id).len()).max().unwrap_or(0);
        let positions = self.model.config().max_position_embeddings;
        let room = if continues { RESERVED_TOKENS.min(positions - longest) } else { 0 };
        // A full cache has no room for steps that run ahead.
        if self.reserve_steps(&chunks, room.max(tokens_each)).is_err() {
            self.reserve_steps(&chunks, tokens_each)?;
        }
        let greedy = requests.iter().all(|request| request.draw.sampler.is_greedy());
        let draws = if greedy { StepDraws::Greedy } else { StepDraws::Sampled };
        let work = StepWork { attends: true, draws, measures: true };
        let step = self.step(requests, options, work)?;
        step.replay()?;
        self.results(requests)
    }

    /// Queues the step after the last one, if it can be.
    fn queue_ahead(&mut self, requests: &[DrawRequest<'_>]) -> Result<Option<StepResults>> {
        let Some(longest) = self.steps.last().map(DecodingStep::longest) else { return Ok(None) };
        for request in requests {
            let next = self.tokens(request.id).len() + 1;
            let possible =
                request.ids.len() == 1 && next <= self.cache.tokens(request.id)?.min(longest);
            if !possible {
                return Ok(None);
            }
        }
        if let Some(step) = self.steps.last_mut() {
            step.replay()?;
        }
        Ok(Some(self.results(requests)?))
    }

    /// Starts to read the results of the last step, which computes the next tokens of requests.
    fn results(&self, requests: &[DrawRequest<'_>]) -> Result<StepResults> {
        let Some(step) = self.steps.last() else { return Err(self.not_on_a_gpu()) };
        let positions = requests.iter().flat_map(|request| {
            let first = self.tokens(request.id).len() + 1;
            first..first + request.ids.len()
        });
        step.results(positions.collect())
    }

    /// The recorded step of some sequences on a GPU, which draws greedily, set to begin with the
    /// tokens that are given, with pages for `steps` steps.
    ///
    /// # Errors
    /// As [`Engine::forward`]; [`InferError::Kernel`] on the CPU.
    pub fn prepare_steps(
        &mut self,
        tokens: &[(SequenceId, u32)],
        options: &CallOptions,
        work: StepWork,
        steps: usize,
    ) -> Result<&mut DecodingStep> {
        self.settle_ahead()?;
        let ids: Vec<[u32; 1]> = tokens.iter().map(|&(_, token)| [token]).collect();
        let chunks: Vec<(SequenceId, &[u32])> =
            tokens.iter().zip(&ids).map(|(&(id, _), ids)| (id, ids.as_slice())).collect();
        self.check(&chunks)?;
        let positions = self.model.config().max_position_embeddings;
        for &(id, _) in tokens {
            let tokens = self.cache.tokens(id)?.saturating_add(steps);
            if tokens > positions {
                return Err(InferError::TooLong { id, tokens, positions });
            }
        }
        self.reserve_steps(&chunks, steps)?;
        let requests: Vec<_> = chunks.iter().map(|&chunk| greedy(chunk)).collect();
        self.step(&requests, options, work)
    }

    /// Runs a checked call of one token for each sequence on a GPU.
    pub(super) fn run_step(
        &mut self,
        chunks: &[(SequenceId, &[u32])],
        options: &CallOptions,
        filled_by: FilledBy,
    ) -> Result<CallOutput> {
        let work = StepWork { attends: true, draws: StepDraws::Nothing, measures: true };
        let requests: Vec<_> = chunks.iter().map(|&chunk| greedy(chunk)).collect();
        self.reserve_steps(chunks, 1)?;
        let step = self.step(&requests, options, work)?;
        step.replay()?;
        let rows = step.logits().to_vec()?;
        let totals = step.totals()?;
        self.add_tokens(&requests, filled_by);
        let shape = [chunks.len(), self.model.config().vocab_size];
        Ok(CallOutput { logits: Tensor::from_vec(rows, shape)?, totals })
    }

    /// Reserves the pages of the next tokens of some sequences, so many for each.
    fn reserve_steps(&mut self, chunks: &[(SequenceId, &[u32])], tokens: usize) -> Result<()> {
        let extension: Vec<_> = chunks.iter().map(|&(id, _)| (id, tokens)).collect();
        self.cache.extend(&extension)?;
        Ok(())
    }

    fn not_on_a_gpu(&self) -> InferError {
        let device = self.cache.device().to_string();
        let (op, what) = ("Engine::draw", "a recorded step".to_owned());
        KernelError::Unsupported { op, what, device, remedy: "use Engine::forward" }.into()
    }

    /// The recorded step for some sequences, whose pages are reserved, set to compute the tokens of
    /// the requests.
    fn step(
        &mut self,
        requests: &[DrawRequest<'_>],
        options: &CallOptions,
        work: StepWork,
    ) -> Result<&mut DecodingStep> {
        let Device::Cuda(gpu) = self.cache.device().clone() else {
            return Err(self.not_on_a_gpu());
        };
        let whole = |it: &DrawRequest<'_>| [self.tokens(it.id), it.ids].concat();
        let texts: Vec<Vec<u32>> = requests.iter().map(whole).collect();
        let mut sequences = Vec::with_capacity(requests.len());
        let mut longest = LEAST_STEP_TOKENS;
        for (&DrawRequest { id, draw, .. }, ids) in requests.iter().zip(&texts) {
            longest = longest.max(self.cache.tokens(id)?.next_power_of_two());
            sequences.push(StepSequence { id, ids, draw });
        }
        let config = self.model.config();
        let key = StepKey {
            sizes: StepSizes {
                sequences: requests.len(),
                tokens_each: requests.first().map_or(0, |request| request.ids.len()),
                longest: longest.min(config.max_position_embeddings),
                vocabulary: config.vocab_size,
            },
            options: CallOptions { fill_change: FillChange::Refuse, ..*options },
            work,
        };
        self.recorded(&gpu, key, &sequences)
    }

    /// The recorded step of a key, recorded now if it is a new one, as the last of `steps`.
    fn recorded(
        &mut self,
        gpu: &Gpu,
        key: StepKey,
        sequences: &[StepSequence<'_>],
    ) -> Result<&mut DecodingStep> {
        let Self { model, cache, steps, .. } = self;
        let step = match steps.iter().position(|step| step.is_for(&key)) {
            Some(index) => steps.remove(index),
            None => DecodingStep::new(gpu, model, cache, key, sequences)?,
        };
        step.set(cache, sequences)?;
        if steps.len() == STEPS {
            steps.remove(0);
        }
        steps.push(step);
        let last = steps.len() - 1;
        Ok(&mut steps[last])
    }
}

/// A request that draws greedily.
fn greedy((id, ids): (SequenceId, &[u32])) -> DrawRequest<'_> {
    DrawRequest { id, ids, draw: Draw::GREEDY }
}
