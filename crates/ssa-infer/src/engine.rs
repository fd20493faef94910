//! Runs a model over a cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use ssa_kernels::kv_cache::{CachedSequences, KvCache, KvShape, SequenceId};
use ssa_kernels::ops::attention::cached::append_kv;
use ssa_kernels::ops::step::StepSequence;
use ssa_kernels::{Device, Gpu, KernelError, Tensor};
use ssa_model::AttendedKeys;

use crate::layer::{CallContext, SelectionTotals};
use crate::sequence::Sequence;
use crate::step::{DecodingStep, StepKey, StepWork};
use crate::{
    CallOptions, FillChange, FilledBy, InferError, InferenceModel, MOST_STEP_SEQUENCES, Result,
};

/// The largest number of tokens that the layers compute together: enough for products to run at
/// full speed, few enough for activations to stay small.
const CHUNK_TOKENS: usize = 512;

/// A model with a cache of many sequences.
pub struct Engine {
    model: Arc<InferenceModel>,
    cache: KvCache,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Steps recorded on a GPU, the last used at the end.
    steps: Vec<DecodingStep>,
}

/// Steps that an engine keeps: batches that grow or shrink, in both modes of attention.
const STEPS: usize = 8;
/// Recorded steps are for sequences of a power of two of tokens, at least so many.
const LEAST_STEP_TOKENS: usize = 1024;

/// Which tokens of a call get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// The last of each sequence.
    Last,
    /// All.
    All,
    /// None: the call only fills the cache.
    None,
}

/// The result of a call.
#[derive(Debug)]
pub struct CallOutput {
    /// Next-token logits `[rows, V]`, in `f32` on the CPU: the rows of the first sequence of the
    /// call, then those of the second, and so on.
    pub logits: Tensor,
    /// What the attentions of the call selected.
    pub totals: SelectionTotals,
}

/// The result of [`Engine::measure`].
#[derive(Debug)]
pub struct MeasuredText {
    /// The hidden states `[N, hidden]` after the final norm, in `f32`.
    pub hidden: Vec<f32>,
    /// What each layer selected.
    pub layers: Vec<SelectionTotals>,
}

impl Engine {
    /// An engine with an empty cache for `capacity` tokens, in pages of `page_size` tokens: the
    /// block size of sparse attention.
    ///
    /// # Errors
    /// [`InferError::Kernel`] as [`KvCache::new`].
    pub fn new(model: InferenceModel, page_size: usize, capacity: usize) -> Result<Self> {
        let shape = kv_shape(&model, page_size);
        let cache = KvCache::new(model.device(), shape, capacity)?;
        let (model, sequences, steps) = (Arc::new(model), BTreeMap::new(), Vec::new());
        Ok(Self { model, cache, sequences, steps })
    }

    /// Bytes that each token takes in the cache of an engine for this model.
    pub fn bytes_per_token(model: &InferenceModel, page_size: usize) -> usize {
        kv_shape(model, page_size).bytes_per_token(model.device())
    }

    /// The model.
    pub fn model(&self) -> &InferenceModel {
        &self.model
    }

    /// The cache.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// A new sequence without tokens.
    pub fn add_sequence(&mut self) -> SequenceId {
        let id = self.cache.add_sequence();
        self.sequences.insert(id, Sequence::default());
        id
    }

    /// Forgets a sequence.
    ///
    /// # Errors
    /// [`InferError::Kernel`] if there is no such sequence.
    pub fn remove_sequence(&mut self, id: SequenceId) -> Result<()> {
        self.cache.remove_sequence(id)?;
        self.sequences.remove(&id);
        Ok(())
    }

    /// A copy of a sequence.
    ///
    /// # Errors
    /// [`InferError::Kernel`] if there is no such sequence, or no room for the copy.
    pub fn fork(&mut self, id: SequenceId) -> Result<SequenceId> {
        let copy = self.cache.fork(id)?;
        let sequence = self.sequences.get(&id).cloned().unwrap_or_default();
        self.sequences.insert(copy, sequence);
        Ok(copy)
    }

    /// Forgets all but the first `tokens` tokens of a sequence.
    ///
    /// # Errors
    /// [`InferError::Kernel`] if there is no such sequence, or if it is shorter.
    pub fn truncate(&mut self, id: SequenceId, tokens: usize) -> Result<()> {
        self.cache.truncate(id, tokens)?;
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.truncate(tokens);
        }
        Ok(())
    }

    /// The tokens of a sequence; none if there is no such sequence.
    pub fn tokens(&self, id: SequenceId) -> &[u32] {
        self.sequences.get(&id).map_or(&[], Sequence::tokens)
    }

    /// Appends tokens to sequences and computes logits.
    ///
    /// A failed call leaves the sequences as they were, or, after [`FillChange::Recompute`], some
    /// of them shorter.
    ///
    /// # Errors
    /// [`InferError`]: no tokens for a sequence, tokens outside the vocabulary, too long a
    /// sequence, a full cache, a cache filled by another attention, or impossible options.
    pub fn forward(
        &mut self,
        chunks: &[(SequenceId, &[u32])],
        options: &CallOptions,
        logits: Logits,
    ) -> Result<CallOutput> {
        self.check(chunks)?;
        let filled_by = options.filled_by(self.model.method(), self.model.config());
        for &(id, _) in chunks {
            self.settle_fill(id, options, filled_by)?;
        }
        self.run(chunks, options, filled_by, logits)
    }

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

    /// Appends tokens whose keys and values `[1, tokens, H, D]` are known, the same ones in all
    /// layers: a context to measure decoding with.
    ///
    /// # Errors
    /// [`InferError::Kernel`] if the tensors do not fit or the cache is full.
    pub fn append_known(
        &mut self,
        id: SequenceId,
        [k, v]: [&Tensor; 2],
        options: &CallOptions,
    ) -> Result<()> {
        let tokens = k.len() / (self.cache.shape().kv_heads * self.cache.shape().head_dim);
        let sequences = self.cache.extend(&[(id, tokens)])?;
        for layer in 0..self.cache.shape().layers {
            append_kv(&mut self.cache, layer, k, v, &sequences)?;
        }
        let filled_by = options.filled_by(self.model.method(), self.model.config());
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.extend(&vec![0; tokens], filled_by);
        }
        Ok(())
    }

    /// Decides what happens to a sequence whose cache was filled by another attention.
    fn settle_fill(
        &mut self,
        id: SequenceId,
        options: &CallOptions,
        filled_by: FilledBy,
    ) -> Result<()> {
        let filled = self.sequences.get(&id).and_then(|it| it.filled_otherwise(filled_by));
        match (filled, options.fill_change) {
            (None, _) | (Some(_), FillChange::Keep) => Ok(()),
            (Some(filled), FillChange::Refuse) => {
                Err(InferError::Filled { id, filled, asked: filled_by })
            }
            (Some(_), FillChange::Recompute) => {
                let tokens = self.tokens(id).to_vec();
                self.truncate(id, 0)?;
                self.run(&[(id, &tokens)], options, filled_by, Logits::None)?;
                Ok(())
            }
        }
    }

    /// Runs a whole text on its own and measures what each layer selects, the true attention mass
    /// included, which costs two more attentions.
    ///
    /// # Errors
    /// Same as [`Engine::forward`].
    pub fn measure(&mut self, ids: &[u32], options: &CallOptions) -> Result<MeasuredText> {
        let id = self.add_sequence();
        let measured = self.measure_sequence(id, ids, options);
        self.remove_sequence(id)?;
        measured
    }

    fn measure_sequence(
        &mut self,
        id: SequenceId,
        ids: &[u32],
        options: &CallOptions,
    ) -> Result<MeasuredText> {
        self.check(&[(id, ids)])?;
        let mut hidden = Vec::new();
        let mut layers = vec![SelectionTotals::default(); self.model.layers.len()];
        for ids in ids.chunks(CHUNK_TOKENS) {
            let sequences = self.cache.extend(&[(id, ids.len())])?;
            let (states, totals) = self.layers(ids, &sequences, options, true)?;
            layers.iter_mut().zip(totals).for_each(|(layer, totals)| *layer += totals);
            hidden.extend(self.model.normed(&states)?.to_vec()?);
        }
        Ok(MeasuredText { hidden, layers })
    }

    fn check(&self, chunks: &[(SequenceId, &[u32])]) -> Result<()> {
        let config = self.model.config();
        let (vocab_size, positions) = (config.vocab_size, config.max_position_embeddings);
        for &(id, ids) in chunks {
            let tokens = self.cache.tokens(id)? + ids.len();
            if ids.is_empty() {
                return Err(InferError::NoTokens { id });
            }
            if let Some(&token) = ids.iter().find(|&&token| token as usize >= vocab_size) {
                return Err(InferError::Token { id, token, vocab_size });
            }
            if tokens > positions {
                return Err(InferError::TooLong { id, tokens, positions });
            }
        }
        Ok(())
    }

    /// Cuts a checked call into chunks and runs them.
    fn run(
        &mut self,
        chunks: &[(SequenceId, &[u32])],
        options: &CallOptions,
        filled_by: FilledBy,
        logits: Logits,
    ) -> Result<CallOutput> {
        let before: Vec<usize> = chunks.iter().map(|&(id, _)| self.tokens(id).len()).collect();
        // Runs on a thread of the pool, so that no op has to wake one.
        let is_step = logits != Logits::None
            && chunks.len() <= MOST_STEP_SEQUENCES
            && chunks.iter().all(|(_, ids)| ids.len() == 1);
        let result = match self.cache.device().clone() {
            Device::Cuda(gpu) if is_step => self.run_step(&gpu, chunks, options, filled_by),
            _ => rayon::scope(|_| self.run_chunks(chunks, options, filled_by, logits)),
        };
        if result.is_err() {
            for (&(id, _), &tokens) in chunks.iter().zip(&before) {
                self.truncate(id, tokens)?;
            }
        }
        result
    }

    fn run_chunks(
        &mut self,
        chunks: &[(SequenceId, &[u32])],
        options: &CallOptions,
        filled_by: FilledBy,
        logits: Logits,
    ) -> Result<CallOutput> {
        let mut totals = SelectionTotals::default();
        let mut rows: Vec<Vec<f32>> = vec![Vec::new(); chunks.len()];
        let mut done = vec![0; chunks.len()];
        loop {
            let (mut parts, mut room) = (Vec::new(), CHUNK_TOKENS);
            for (index, &(_, ids)) in chunks.iter().enumerate() {
                let take = (ids.len() - done[index]).min(room);
                if take > 0 {
                    parts.push((index, done[index]..done[index] + take));
                    (done[index], room) = (done[index] + take, room - take);
                }
            }
            if parts.is_empty() {
                break;
            }
            let extension: Vec<(SequenceId, usize)> =
                parts.iter().map(|(index, part)| (chunks[*index].0, part.len())).collect();
            let ids = parts.iter().flat_map(|(index, part)| &chunks[*index].1[part.clone()]);
            let ids: Vec<u32> = ids.copied().collect();
            let sequences = self.cache.extend(&extension)?;
            let (hidden, layers) = self.layers(&ids, &sequences, options, false)?;
            layers.into_iter().for_each(|layer| totals += layer);
            for ((index, part), queries) in parts.iter().zip(sequences.sequences().ranges()) {
                let (id, ids) = chunks[*index];
                if let Some(sequence) = self.sequences.get_mut(&id) {
                    sequence.extend(&ids[part.clone()], filled_by);
                }
                let wanted = match logits {
                    Logits::All => queries,
                    Logits::Last if part.end == ids.len() => queries.end - 1..queries.end,
                    Logits::Last | Logits::None => continue,
                };
                let hidden = hidden.rows_range(wanted)?;
                rows[*index].extend(self.model.logits(&hidden)?.to_vec()?);
            }
        }
        let vocab_size = self.model.config().vocab_size;
        let rows = rows.concat();
        let shape = [rows.len() / vocab_size, vocab_size];
        Ok(CallOutput { logits: Tensor::from_vec(rows, shape)?, totals })
    }

    /// Runs a checked call of one token for each sequence on a GPU.
    fn run_step(
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

    /// The hidden states `[1, N, hidden]` after the last layer, and what each layer selected.
    fn layers(
        &mut self,
        ids: &[u32],
        sequences: &CachedSequences,
        options: &CallOptions,
        measures: bool,
    ) -> Result<(Tensor, Vec<SelectionTotals>)> {
        let Self { model, cache, .. } = self;
        let config = model.config();
        let plan = model.method().inference_plan(options.mode)?;
        let rope = model.rope.covering(sequences.sequences().end_position(), config)?;
        let context = CallContext {
            config,
            attentions: model.method().attentions(plan.stream()),
            options,
            sequences,
            rope: &rope,
            measures,
        };
        let mut x = model.embedding.rows(ids)?;
        let mut totals = vec![SelectionTotals::default(); model.layers.len()];
        for ((index, layer), totals) in model.layers.iter().enumerate().zip(&mut totals) {
            x = layer.forward(x, index, cache, &context, totals)?;
        }
        Ok((x, totals))
    }
}

/// The sizes of a cache for a model.
fn kv_shape(model: &InferenceModel, page_size: usize) -> KvShape {
    let config = model.config();
    let sizes = config.attention_sizes();
    let method = model.method();
    let mut kinds = method.modes().flat_map(|mode| method.attentions(mode));
    KvShape {
        layers: config.num_hidden_layers,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        page_size,
        value_means: kinds.any(|kind| matches!(kind.keys(&sizes), AttendedKeys::BlockMeans { .. })),
    }
}
