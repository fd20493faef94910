//! Decoding steps over long contexts.
//!
//! Weights are random, and so are the keys and values of the contexts, which are written to the
//! cache without computing them. What a step costs depends on neither.

use std::time::Instant;

use serde::Serialize;
use ssa_infer::{CallOptions, Engine, InferenceModel, Logits, SequenceId, StepDraws, StepWork};
use ssa_kernels::cuda::Stopwatch;
use ssa_kernels::{Device, KernelError};
use ssa_model::{AttentionMode, AttentionOptions, Model, ModelConfig, ModelSettings, SparseBudget};

use crate::Result;
use crate::inputs::Normal;

/// Tokens of the keys and values that contexts repeat: a prime, so that no two blocks are equal
/// before all alignments have occurred.
const REPEATED_TOKENS: usize = 4099;

/// What is measured: every attention at every context and batch.
#[derive(Clone, Debug, Serialize)]
pub struct DecodeSettings {
    /// Sequences of a step.
    pub batches: Vec<usize>,
    /// Tokens of each sequence before the first step.
    pub contexts: Vec<usize>,
    /// Modes of attention.
    pub attentions: Vec<AttentionMode>,
    /// Budget of sparse attention.
    pub budget: SparseBudget,
    /// Measured steps.
    pub steps: usize,
    /// Steps before these.
    pub warm_up: usize,
    /// Whether prompts as long as the contexts are measured, too.
    pub prefill: bool,
}

/// The time of a step.
#[derive(Clone, Debug, Serialize)]
pub struct DecodeRow {
    /// Sequences of a step.
    pub batch: usize,
    /// Tokens of each sequence.
    pub context: usize,
    /// Mode of attention.
    pub attention: AttentionMode,
    /// Milliseconds of a step.
    pub ms: f64,
    /// Milliseconds of a step without attention; GPUs only.
    pub without_attention_ms: Option<f64>,
    /// Milliseconds from one prompt as long as the context to the logits of its first token.
    pub prefill_ms: Option<f64>,
    /// Tokens per second of all sequences.
    pub tokens_per_second: f64,
    /// Bytes that a step must read: weights, and keys, values or means.
    pub bytes: usize,
}

impl DecodeRow {
    /// The rate at which the bytes are read, in GB/s.
    pub fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / self.ms / 1e6
    }
}

impl DecodeSettings {
    /// Tokens of the largest cache.
    fn capacity(&self) -> usize {
        let [batch, context] =
            [&self.batches, &self.contexts].map(|list| list.iter().copied().max().unwrap_or(1));
        let page = self.budget.block_size();
        batch * (context + self.warm_up + self.steps + 1).next_multiple_of(page)
    }
}

/// Measures decoding with a model of these settings.
///
/// # Errors
/// [`BenchError::Infer`](crate::BenchError::Infer), also if memory does not suffice.
pub fn decode(
    model: ModelSettings,
    device: &Device,
    settings: &DecodeSettings,
    observe: &mut dyn FnMut(&DecodeRow),
) -> Result<Vec<DecodeRow>> {
    let longest = settings.contexts.iter().max().copied().unwrap_or(1);
    let positions = (longest + settings.warm_up + settings.steps + 1).next_power_of_two();
    let positions = positions.max(model.max_position_embeddings);
    let model = ModelSettings { max_position_embeddings: positions, ..model };
    let config = ModelConfig::new(ModelSettings { budget: settings.budget, ..model })?;
    let method = config.attention_method;
    let model = Model::init(config, 1)?.to_device(device)?;
    let inference = InferenceModel::new(&model, method)?;
    drop(model);
    let page_size = settings.budget.block_size();
    let mut engine = Engine::new(inference, page_size, settings.capacity())?;
    let mut rows = Vec::new();
    for &batch in &settings.batches {
        let ids: Vec<SequenceId> = (0..batch).map(|_| engine.add_sequence()).collect();
        let mut contexts = settings.contexts.clone();
        contexts.sort_unstable();
        for context in contexts {
            let mut prefills = vec![None; settings.attentions.len()];
            if settings.prefill {
                for (ms, &attention) in prefills.iter_mut().zip(&settings.attentions) {
                    *ms = Some(prefill(&mut engine, (ids[0], context, attention))?);
                }
            }
            fill(&mut engine, &ids, context)?;
            for (&attention, prefill_ms) in settings.attentions.iter().zip(prefills) {
                let row = measure(&mut engine, &ids, (context, attention), settings)?;
                let row = DecodeRow { prefill_ms, ..row };
                observe(&row);
                rows.push(row);
            }
        }
        ids.into_iter().try_for_each(|id| engine.remove_sequence(id))?;
    }
    Ok(rows)
}

fn call_options(engine: &Engine, mode: AttentionMode) -> Result<CallOptions> {
    let config = engine.model().config();
    let options: AttentionOptions = config.attention_options(mode);
    Ok(CallOptions {
        fill_change: ssa_infer::FillChange::Keep,
        ..CallOptions::new(&options, engine.cache().shape().page_size)?
    })
}

/// Extends sequences to a context of random keys and values.
fn fill(engine: &mut Engine, ids: &[SequenceId], context: usize) -> Result<()> {
    let shape = *engine.cache().shape();
    let device = engine.cache().device().clone();
    let options = call_options(engine, engine.model().method().main_mode())?;
    let mut normal = Normal::new();
    let mut rows = |tokens: usize| -> Result<_, KernelError> {
        let shape = [1, tokens, shape.kv_heads, shape.head_dim];
        Ok([normal.tensor(&device, &shape)?, normal.tensor(&device, &shape)?])
    };
    let repeated = rows(REPEATED_TOKENS)?;
    for &id in ids {
        loop {
            let missing = context - engine.tokens(id).len().min(context);
            match missing {
                0 => break,
                _ if missing >= REPEATED_TOKENS => {
                    engine.append_known(id, [&repeated[0], &repeated[1]], &options)?;
                }
                _ => {
                    let [k, v] = rows(missing)?;
                    engine.append_known(id, [&k, &v], &options)?;
                }
            }
        }
    }
    Ok(())
}

/// Milliseconds that a prompt takes up to the logits of its first token: the best of three runs.
/// The sequence has no tokens afterwards.
fn prefill(
    engine: &mut Engine,
    (id, tokens, attention): (SequenceId, usize, AttentionMode),
) -> Result<f64> {
    let options = call_options(engine, attention)?;
    let vocab_size = engine.model().config().vocab_size as u32;
    let prompt: Vec<u32> = (0..tokens as u32).map(|i| i * 7 % vocab_size).collect();
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        engine.truncate(id, 0)?;
        let start = Instant::now();
        engine.forward(&[(id, &prompt)], &options, Logits::Last)?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    engine.truncate(id, 0)?;
    Ok(best)
}

fn measure(
    engine: &mut Engine,
    ids: &[SequenceId],
    (context, attention): (usize, AttentionMode),
    settings: &DecodeSettings,
) -> Result<DecodeRow> {
    let options = call_options(engine, attention)?;
    let tokens: Vec<(SequenceId, u32)> = ids.iter().map(|&id| (id, 1)).collect();
    let time = |engine: &mut Engine, attends: bool| -> Result<f64> {
        let ms = match engine.cache().device().clone() {
            Device::Cuda(gpu) => {
                let work = StepWork { attends, draws: StepDraws::Greedy, measures: false };
                let all = settings.warm_up + settings.steps;
                let step = engine.prepare_steps(&tokens, &options, work, all)?;
                (0..settings.warm_up).try_for_each(|_| step.replay())?;
                let stopwatch = Stopwatch::start(&gpu)?;
                (0..settings.steps).try_for_each(|_| step.replay())?;
                stopwatch.stop()?
            }
            _ => {
                let mut step = || -> Result<()> {
                    let chunks: Vec<(SequenceId, &[u32])> =
                        ids.iter().map(|&id| (id, [1].as_slice())).collect();
                    engine.forward(&chunks, &options, Logits::Last)?;
                    Ok(())
                };
                (0..settings.warm_up).try_for_each(|_| step())?;
                let start = Instant::now();
                (0..settings.steps).try_for_each(|_| step())?;
                start.elapsed().as_secs_f64() * 1e3
            }
        };
        for &id in ids {
            engine.truncate(id, context)?;
        }
        Ok(ms / settings.steps as f64)
    };
    let ms = time(engine, true)?;
    let is_gpu = matches!(engine.cache().device(), Device::Cuda(_));
    let without_attention_ms = is_gpu.then(|| time(engine, false)).transpose()?;
    let shape = *engine.cache().shape();
    let element = engine.cache().device().dtype().size();
    let row = 2 * shape.layers * shape.kv_heads * shape.head_dim * element;
    let keys = match attention {
        AttentionMode::Full => context * row,
        AttentionMode::Sparse => {
            let means = context / shape.page_size;
            let mean = shape.layers * shape.kv_heads * shape.head_dim * size_of::<f32>();
            settings.budget.receptive_field().min(context) * row + means * mean
        }
    };
    let batch = ids.len();
    Ok(DecodeRow {
        batch,
        context,
        attention,
        ms,
        without_attention_ms,
        prefill_ms: None,
        tokens_per_second: batch as f64 / ms * 1e3,
        bytes: engine.model().weight_bytes() + batch * keys,
    })
}
