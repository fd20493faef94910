//! Steps that are recorded once and replayed, on a GPU.

use ssa_kernels::kv_cache::SequenceId;
use ssa_kernels::ops::step::StepSequence;
use ssa_kernels::{Device, Gpu, KernelError, Tensor};

use super::{CallOutput, Engine};
use crate::step::{DecodingStep, StepKey, StepWork};
use crate::{CallOptions, FillChange, FilledBy, InferError, Result};

/// Steps that an engine keeps: batches that grow or shrink, in both modes of attention.
const STEPS: usize = 8;
/// Recorded steps are for sequences of a power of two of tokens, at least so many.
const LEAST_STEP_TOKENS: usize = 1024;

impl Engine {
    /// Extends sequences by the most likely tokens, so many for each, on a GPU that is not asked in
    /// between: `tokens` are those that come after the cached ones and are already chosen. Returns
    /// the tokens of each step, of which the last is not in the cache yet.
    ///
    /// # Errors
    /// As [`Engine::forward`]; [`InferError::NotANumber`] if a logit is not a number;
    /// [`InferError::Kernel`] on the CPU.
    pub fn decode_greedy(
        &mut self,
        tokens: &[(SequenceId, u32)],
        options: &CallOptions,
        steps: usize,
    ) -> Result<Vec<Vec<u32>>> {
        let filled_by = options.filled_by(self.model.method(), self.model.config());
        for &(id, _) in tokens {
            self.settle_fill(id, options, filled_by)?;
        }
        let chosen = self.choose(tokens, options, steps);
        for (index, &(id, token)) in tokens.iter().enumerate() {
            if let Ok(rows) = &chosen {
                let later = rows.iter().map(|row| row[index]);
                let cached: Vec<u32> = std::iter::once(token).chain(later).take(steps).collect();
                if let Some(sequence) = self.sequences.get_mut(&id) {
                    sequence.extend(&cached, filled_by);
                }
            } else if self.sequences.contains_key(&id) {
                let tokens = self.tokens(id).len();
                self.truncate(id, tokens)?;
            }
        }
        chosen
    }

    /// Runs steps that choose their tokens.
    fn choose(
        &mut self,
        tokens: &[(SequenceId, u32)],
        options: &CallOptions,
        steps: usize,
    ) -> Result<Vec<Vec<u32>>> {
        let work = StepWork { attends: true, chooses: true, measures: false };
        let step = self.prepare_steps(tokens, options, work, steps)?;
        (0..steps).try_for_each(|_| step.replay())?;
        let rows = step.chosen(steps)?.into_iter();
        let rows = rows.map(|row| row.into_iter().collect::<Option<Vec<u32>>>());
        rows.collect::<Option<Vec<Vec<u32>>>>().ok_or(InferError::NotANumber)
    }

    /// The recorded step of some sequences on a GPU, set to begin with the tokens that are given,
    /// with pages for `steps` steps.
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
        let ids: Vec<[u32; 1]> = tokens.iter().map(|&(_, token)| [token]).collect();
        let chunks: Vec<(SequenceId, &[u32])> =
            tokens.iter().zip(&ids).map(|(&(id, _), ids)| (id, ids.as_slice())).collect();
        self.check(&chunks)?;
        let Device::Cuda(gpu) = self.cache.device().clone() else {
            return Err(KernelError::Unsupported {
                op: "Engine::prepare_steps",
                what: "recorded steps".to_owned(),
                device: self.cache.device().to_string(),
                remedy: "use Engine::forward",
            }
            .into());
        };
        let positions = self.model.config().max_position_embeddings;
        for &(id, _) in tokens {
            let tokens = self.cache.tokens(id)?.saturating_add(steps);
            if tokens > positions {
                return Err(InferError::TooLong { id, tokens, positions });
            }
        }
        self.reserve_steps(tokens, steps)?;
        self.step(&gpu, tokens, options, work, steps)
    }

    /// Runs a checked call of one token for each sequence on a GPU.
    pub(super) fn run_step(
        &mut self,
        gpu: &Gpu,
        chunks: &[(SequenceId, &[u32])],
        options: &CallOptions,
        filled_by: FilledBy,
    ) -> Result<CallOutput> {
        let work = StepWork { attends: true, chooses: false, measures: true };
        let tokens: Vec<(SequenceId, u32)> = chunks.iter().map(|&(id, ids)| (id, ids[0])).collect();
        self.reserve_steps(&tokens, 1)?;
        let step = self.step(gpu, &tokens, options, work, 1)?;
        step.replay()?;
        let rows = step.logits().to_vec()?;
        let totals = step.totals()?;
        for (id, token) in tokens {
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.extend(&[token], filled_by);
            }
        }
        let shape = [chunks.len(), self.model.config().vocab_size];
        Ok(CallOutput { logits: Tensor::from_vec(rows, shape)?, totals })
    }

    /// Reserves the pages of the next steps of some sequences.
    fn reserve_steps(&mut self, tokens: &[(SequenceId, u32)], steps: usize) -> Result<()> {
        let extension: Vec<_> = tokens.iter().map(|&(id, _)| (id, steps)).collect();
        self.cache.extend(&extension)?;
        Ok(())
    }

    /// The recorded step for some sequences, whose pages are reserved, set to compute from the
    /// tokens that are given.
    fn step(
        &mut self,
        gpu: &Gpu,
        tokens: &[(SequenceId, u32)],
        options: &CallOptions,
        work: StepWork,
        history: usize,
    ) -> Result<&mut DecodingStep> {
        let sequence =
            |&(id, token)| Ok(StepSequence { id, token, position: self.tokens(id).len() });
        let sequences = tokens.iter().map(sequence).collect::<Result<Vec<StepSequence>>>()?;
        let mut longest = LEAST_STEP_TOKENS;
        for &(id, _) in tokens {
            longest = longest.max(self.cache.tokens(id)?.next_power_of_two());
        }
        let longest = longest.min(self.model.config().max_position_embeddings);
        let options = CallOptions { fill_change: FillChange::Refuse, ..*options };
        let key = StepKey { sequences: tokens.len(), tokens: longest, options, work };
        let Self { model, cache, steps, .. } = self;
        match steps.iter().position(|step| step.is_for(&key, history)) {
            Some(index) => {
                let step = steps.remove(index);
                step.set(cache, &sequences)?;
                steps.push(step);
            }
            None => {
                let step = DecodingStep::new(gpu, model, cache, key, (&sequences, history))?;
                step.set(cache, &sequences)?;
                if steps.len() == STEPS {
                    steps.remove(0);
                }
                steps.push(step);
            }
        }
        let last = steps.len() - 1;
        Ok(&mut steps[last])
    }
}
