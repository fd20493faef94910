//! Runs a model over a cache.

mod ahead;
mod draw_request;
mod measure;
mod recorded;
mod score;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ssa_kernels::kv_cache::{CachedSequences, KvCache, KvShape, SequenceId};
use ssa_kernels::ops::attention::cached::append_kv;
use ssa_kernels::{Device, Tensor};
use ssa_model::AttendedKeys;

pub use draw_request::DrawRequest;
pub use measure::MeasuredText;
pub use score::{ScoredChunk, TokenScore};

use ahead::StepAhead;

use crate::layer::{CallContext, CallTotals, SelectionTotals};
use crate::sequence::Sequence;
use crate::step::DecodingStep;
use crate::{
    CallOptions, FillChange, FilledBy, InferError, InferenceModel, MOST_STEP_SEQUENCES, Result,
};

/// The largest number of tokens that the layers compute together: enough for products to run at
/// full speed, few enough for activations to stay small.
const CHUNK_TOKENS: usize = 512;
/// The same on a GPU.
const GPU_CHUNK_TOKENS: usize = 2048;

/// A model with a cache of many sequences.
pub struct Engine {
    model: Arc<InferenceModel>,
    cache: KvCache,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Steps recorded on a GPU, the last used at the end.
    steps: Vec<DecodingStep>,
    /// The step that was queued before it was asked for.
    ahead: Option<StepAhead>,
}

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

/// What the layers computed of a chunk at once.
struct Part<'a> {
    /// The chunk of the call.
    chunk: usize,
    /// Which of its tokens.
    ids: Range<usize>,
    /// Their rows of `hidden`.
    rows: Range<usize>,
    /// Hidden states `[1, N, hidden]` before the final norm.
    hidden: &'a Tensor,
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

impl Engine {
    /// An engine with an empty cache for `capacity` tokens, in pages of `page_size` tokens: the
    /// block size of sparse attention.
    ///
    /// # Errors
    /// [`InferError::Kernel`] as [`KvCache::new`].
    pub fn new(
        model: impl Into<Arc<InferenceModel>>,
        page_size: usize,
        capacity: usize,
    ) -> Result<Self> {
        let model = model.into();
        let shape = kv_shape(&model, page_size);
        let cache = KvCache::new(model.device(), shape, capacity)?;
        Ok(Self { model, cache, sequences: BTreeMap::new(), steps: Vec::new(), ahead: None })
    }

    /// Bytes that each token takes in the cache of an engine for this model.
    pub fn bytes_per_token(model: &InferenceModel, page_size: usize) -> usize {
        kv_shape(model, page_size).bytes_per_token(model.device())
    }

    /// The model.
    pub fn model(&self) -> &InferenceModel {
        &self.model
    }

    /// The largest number of tokens that the layers compute together; longer calls are divided.
    pub fn chunk_tokens(&self) -> usize {
        match self.model.device() {
            Device::Cpu => CHUNK_TOKENS,
            _ => GPU_CHUNK_TOKENS,
        }
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
        self.settle_ahead()?;
        self.cache.remove_sequence(id)?;
        self.sequences.remove(&id);
        Ok(())
    }

    /// A copy of a sequence.
    ///
    /// # Errors
    /// [`InferError::Kernel`] if there is no such sequence, or no room for the copy.
    pub fn fork(&mut self, id: SequenceId) -> Result<SequenceId> {
        self.settle_ahead()?;
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
        self.settle_ahead()?;
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
        self.settle_ahead()?;
        let filled_by = self.admit(chunks, options)?;
        self.run(chunks, options, filled_by, logits)
    }

    /// Checks a call and decides what happens to sequences whose cache was filled by another
    /// attention. Returns what the call fills the cache by.
    fn admit(
        &mut self,
        chunks: &[(SequenceId, &[u32])],
        options: &CallOptions,
    ) -> Result<FilledBy> {
        self.check(chunks)?;
        let filled_by = options.filled_by(self.model.method(), self.model.config());
        for &(id, _) in chunks {
            self.settle_fill(id, options, filled_by)?;
        }
        Ok(filled_by)
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
        self.settle_ahead()?;
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
        let is_step = logits != Logits::None
            && chunks.len() <= MOST_STEP_SEQUENCES
            && chunks.iter().all(|(_, ids)| ids.len() == 1);
        self.or_undone(chunks, |engine| match engine.cache.device() {
            Device::Cuda(_) if is_step => engine.run_step(chunks, options, filled_by),
            // On a thread of the pool, so that no op has to wake one.
            _ => rayon::scope(|_| engine.run_with_logits(chunks, options, filled_by, logits)),
        })
    }

    /// Runs a call, and leaves its sequences as they were if it fails.
    fn or_undone<T>(
        &mut self,
        chunks: &[(SequenceId, &[u32])],
        call: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let before: Vec<usize> = chunks.iter().map(|&(id, _)| self.tokens(id).len()).collect();
        let result = call(self);
        if result.is_err() {
            self.settle_ahead()?;
            for (&(id, _), &tokens) in chunks.iter().zip(&before) {
                if self.sequences.contains_key(&id) {
                    self.truncate(id, tokens)?;
                }
            }
        }
        result
    }

    fn run_with_logits(
        &mut self,
        chunks: &[(SequenceId, &[u32])],
        options: &CallOptions,
        filled_by: FilledBy,
        logits: Logits,
    ) -> Result<CallOutput> {
        let mut rows: Vec<Vec<f32>> = vec![Vec::new(); chunks.len()];
        let totals = self.run_chunks(chunks, options, filled_by, |model, part| {
            let wanted = match logits {
                Logits::All => part.rows,
                Logits::Last if part.ids.end == chunks[part.chunk].1.len() => {
                    part.rows.end - 1..part.rows.end
                }
                Logits::Last | Logits::None => return Ok(()),
            };
            let hidden = part.hidden.rows_range(wanted)?;
            rows[part.chunk].extend(model.logits(&hidden)?.to_vec()?);
            Ok(())
        })?;
        let vocab_size = self.model.config().vocab_size;
        let rows = rows.concat();
        let shape = [rows.len() / vocab_size, vocab_size];
        Ok(CallOutput { logits: Tensor::from_vec(rows, shape)?, totals })
    }

    /// Runs a checked call, so many tokens at a time; `take` sees the hidden states of each part of
    /// a chunk. Returns what the attentions selected.
    fn run_chunks(
        &mut self,
        chunks: &[(SequenceId, &[u32])],
        options: &CallOptions,
        filled_by: FilledBy,
        mut take: impl FnMut(&InferenceModel, Part<'_>) -> Result<()>,
    ) -> Result<SelectionTotals> {
        let mut totals = SelectionTotals::default();
        let mut done = vec![0; chunks.len()];
        loop {
            let (mut parts, mut room) = (Vec::new(), self.chunk_tokens());
            for (index, &(_, ids)) in chunks.iter().enumerate() {
                let take = (ids.len() - done[index]).min(room);
                if take > 0 {
                    parts.push((index, done[index]..done[index] + take));
                    (done[index], room) = (done[index] + take, room - take);
                }
            }
            if parts.is_empty() {
                return Ok(totals);
            }
            let extension: Vec<(SequenceId, usize)> =
                parts.iter().map(|(index, part)| (chunks[*index].0, part.len())).collect();
            let ids = parts.iter().flat_map(|(index, part)| &chunks[*index].1[part.clone()]);
            let ids: Vec<u32> = ids.copied().collect();
            let sequences = self.cache.extend(&extension)?;
            let (hidden, layers) = self.layers(&ids, &sequences, options, false)?;
            layers.into_iter().for_each(|layer| totals += layer);
            for ((chunk, ids), rows) in parts.into_iter().zip(sequences.sequences().ranges()) {
                let (id, all) = chunks[chunk];
                if let Some(sequence) = self.sequences.get_mut(&id) {
                    sequence.extend(&all[ids.clone()], filled_by);
                }
                take(&self.model, Part { chunk, ids, rows, hidden: &hidden })?;
            }
        }
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
        let mut totals = CallTotals::new(model.device(), model.layers.len());
        for (index, layer) in model.layers.iter().enumerate() {
            x = layer.forward(x, index, cache, &context, &mut totals)?;
        }
        Ok((x, totals.read()?))
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
