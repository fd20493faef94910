//! Decoding steps on a GPU: recorded once, then replayed by one launch each.

use std::sync::Arc;

use ssa_kernels::cuda::Recording;
use ssa_kernels::kv_cache::KvCache;
use ssa_kernels::ops::rope::RopeTable;
use ssa_kernels::ops::sampling::SamplingError;
use ssa_kernels::ops::step::{
    DrawnTokens, StepAttention, StepKeys, StepOutput, StepScratch, StepSelections, StepSequence,
    StepSizes, StepTokens,
};
use ssa_kernels::{DType, Gpu, KernelError, Tensor};
use ssa_model::{AttendedKeys, AttentionKind, AttentionSizes};

use crate::{CallOptions, InferenceModel, Result, SelectionTotals};

/// What a step computes besides the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepWork {
    /// Whether it attends. Without, it serves to measure what attention costs.
    pub attends: bool,
    /// Whether it draws the token that follows each of its tokens and moves on to it, so that the
    /// next step can follow without the host.
    pub draws: StepDraws,
    /// Whether it measures the mass that selections keep.
    pub measures: bool,
}

/// How a step draws tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepDraws {
    /// Not at all.
    Nothing,
    /// All by [`Draw::GREEDY`](crate::Draw::GREEDY) or another greedy sampler.
    Greedy,
    /// As the samplers of its sequences say.
    Sampled,
}

/// What a recorded step is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepKey {
    pub(crate) sizes: StepSizes,
    pub(crate) options: CallOptions,
    pub(crate) work: StepWork,
}

/// A step of some sequences, ready to be replayed.
pub struct DecodingStep {
    key: StepKey,
    recording: Recording<StepState>,
}

/// The memory of a step.
struct StepState {
    model: Arc<InferenceModel>,
    tokens: StepTokens,
    rope: Arc<RopeTable>,
    attentions: &'static [&'static dyn AttentionKind],
    options: CallOptions,
    work: StepWork,
    scratch: StepScratch,
    /// Residual stream `[N, hidden]`.
    x: Tensor,
    /// Queries, keys, values and scores of gates `[N, ..]`.
    projected: Tensor,
    /// `[N, HQ * D]`.
    q: Tensor,
    /// `[N, HQ * D]`.
    attended: Tensor,
    /// `[N, F]`.
    hidden: Tensor,
    /// `[N, V]`.
    logits: Tensor,
}

impl DecodingStep {
    /// Records a step over a cache.
    pub(crate) fn new(
        gpu: &Gpu,
        model: &Arc<InferenceModel>,
        cache: &KvCache,
        key: StepKey,
        sequences: &[StepSequence<'_>],
    ) -> Result<Self> {
        let mut state = StepState::new(model, cache, &key)?;
        // Compiles and loads all kernels; nothing is lost, since the same step follows.
        state.tokens.set(cache, sequences)?;
        state.run()?;
        let recording = Recording::new(gpu, state, StepState::run)?;
        Ok(Self { key, recording })
    }

    pub(crate) fn is_for(&self, key: &StepKey) -> bool {
        self.key == *key
    }

    /// The most tokens of a sequence.
    pub(crate) fn longest(&self) -> usize {
        self.key.sizes.longest
    }

    /// Sets the sequences of the next step.
    pub(crate) fn set(&self, cache: &KvCache, sequences: &[StepSequence<'_>]) -> Result<()> {
        Ok(self.recording.state().tokens.set(cache, sequences)?)
    }

    /// Queues a step.
    ///
    /// # Errors
    /// [`InferError::Kernel`](crate::InferError::Kernel) if the GPU refuses.
    pub fn replay(&mut self) -> Result<()> {
        Ok(self.recording.replay()?)
    }

    /// The logits `[N, V]` of the last step, on the GPU.
    pub fn logits(&self) -> &Tensor {
        &self.recording.state().logits
    }

    /// Starts to read what the last step drew, after so many tokens each, and what its selections
    /// kept.
    pub(crate) fn results(&self, positions: Vec<usize>) -> Result<StepResults> {
        let StepState { tokens, scratch, .. } = self.recording.state();
        Ok(StepResults { drawn: tokens.drawn(positions)?, selections: scratch.selections()? })
    }

    /// What the selections of the last step kept, if it measures that.
    pub(crate) fn totals(&self) -> Result<SelectionTotals> {
        totals(self.recording.state().scratch.selections()?)
    }
}

/// The results of a step, on their way from a GPU.
#[derive(Debug)]
pub(crate) struct StepResults {
    drawn: DrawnTokens,
    selections: StepSelections,
}

impl StepResults {
    /// The drawn tokens and what the selections kept. Waits for the step, not for later ones.
    pub(crate) fn wait(self) -> Result<(Vec<u32>, SelectionTotals)> {
        let drawn = self.drawn.wait()?.into_iter().collect::<Result<_, SamplingError>>()?;
        Ok((drawn, totals(self.selections)?))
    }
}

fn totals(selections: StepSelections) -> Result<SelectionTotals> {
    let mut totals = SelectionTotals::default();
    for [mass, pages] in selections.wait()? {
        totals += SelectionTotals {
            selections: 1,
            blocks: pages as u64,
            kept_mass: f64::from(mass),
            true_mass: 0.0,
        };
    }
    Ok(totals)
}

impl StepState {
    fn new(model: &Arc<InferenceModel>, cache: &KvCache, key: &StepKey) -> Result<Self> {
        let (config, rows) = (model.config(), key.sizes.tokens());
        let tokens = StepTokens::new(cache, key.sizes)?;
        let plan = model.method().inference_plan(key.options.mode)?;
        let attentions = model.method().attentions(plan.stream());
        let sizes = attention_sizes(model, &key.options);
        let selects = attentions
            .iter()
            .any(|kind| matches!(kind.keys(&sizes), AttendedKeys::Selected { .. }));
        let pages =
            if selects { key.options.pages.most_pages(cache.shape().page_size)? } else { 1 };
        let measures = selects && key.work.measures;
        let heads = config.num_attention_heads;
        let zeros = |dtype, columns| Tensor::zeros_on(model.device(), dtype, [rows, columns]);
        let width = heads * config.head_dim;
        Ok(Self {
            rope: model.rope.covering(key.sizes.longest, config)?,
            scratch: StepScratch::new(&tokens, heads, pages, measures)?,
            x: zeros(DType::Bf16, config.hidden_size)?,
            projected: zeros(DType::F32, model.projection_width())?,
            q: zeros(DType::Bf16, width)?,
            attended: zeros(DType::Bf16, width)?,
            hidden: zeros(DType::Bf16, config.intermediate_size)?,
            logits: zeros(DType::F32, config.vocab_size)?,
            model: model.clone(),
            tokens,
            attentions,
            options: key.options,
            work: key.work,
        })
    }

    fn run(&mut self) -> Result<(), KernelError> {
        let Self { model, tokens, rope, attentions, options, work, scratch, .. } = self;
        let Self { x, projected, q, attended, hidden, logits, .. } = self;
        let config = model.config();
        let (eps, softmax_scale) = (config.rms_norm_eps as f32, config.softmax_scale());
        let sizes = attention_sizes(model, options);
        tokens.embed(&model.embedding, x)?;
        for (index, layer) in model.layers.iter().enumerate() {
            let norm = Some((&layer.attention_norm, eps));
            layer.projections.step(x, norm, StepOutput::F32(projected))?;
            tokens.rope_append(index, projected, &layer.head_maps(eps), rope, q)?;
            let kinds = attentions.iter().enumerate().filter(|_| work.attends);
            for (place, kind) in kinds {
                let keys = match kind.keys(&sizes) {
                    AttendedKeys::All => StepKeys::All,
                    AttendedKeys::Last(_) => StepKeys::Last(options.window_size),
                    AttendedKeys::BlockMeans { .. } => StepKeys::Means,
                    AttendedKeys::Selected { .. } => StepKeys::Selected(&options.pages),
                };
                let gates = layer.step_gates(kind.gate(), projected, config);
                let attention = StepAttention { keys, softmax_scale, gates, add: place > 0 };
                tokens.attend(index, q, &attention, scratch, attended)?;
            }
            layer.output.step(attended, None, StepOutput::Add(x))?;
            let norm = Some((&layer.mlp_norm, eps));
            layer.gate_up.step(x, norm, StepOutput::SwiGlu(hidden))?;
            layer.down.step(hidden, None, StepOutput::Add(x))?;
        }
        let head = model.head.as_ref().unwrap_or(&model.embedding);
        head.step(x, Some((&model.norm, eps)), StepOutput::F32(logits))?;
        match work.draws {
            StepDraws::Nothing => Ok(()),
            draws => tokens.draw(logits, draws == StepDraws::Sampled),
        }
    }
}

fn attention_sizes(model: &InferenceModel, options: &CallOptions) -> AttentionSizes {
    AttentionSizes { window_size: options.window_size, ..model.config().attention_sizes() }
}
