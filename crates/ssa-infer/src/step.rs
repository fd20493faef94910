//! Decoding steps on a GPU: recorded once, then replayed by one launch each.

use std::sync::Arc;

use ssa_kernels::cuda::Recording;
use ssa_kernels::kv_cache::KvCache;
use ssa_kernels::ops::rope::RopeTable;
use ssa_kernels::ops::step::{
    StepAttention, StepKeys, StepOutput, StepScratch, StepSequence, StepTokens,
};
use ssa_kernels::{DType, Gpu, KernelError, Tensor};
use ssa_model::{AttendedKeys, AttentionKind, AttentionSizes};

use crate::{CallOptions, InferenceModel, Result, SelectionTotals};

/// What a step computes besides the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepWork {
    /// Whether it attends. Without, it serves to measure what attention costs.
    pub attends: bool,
    /// Whether it chooses the most likely token of each sequence and moves on to it, so that the
    /// next step can follow without the host.
    pub chooses: bool,
    /// Whether it measures the mass that selections keep.
    pub measures: bool,
}

/// What a recorded step is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepKey {
    pub(crate) sequences: usize,
    /// The longest sequence, in tokens.
    pub(crate) tokens: usize,
    pub(crate) options: CallOptions,
    pub(crate) work: StepWork,
}

/// A step of some sequences, ready to be replayed.
pub struct DecodingStep {
    key: StepKey,
    history: usize,
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
    /// Records a step over a cache. `history` steps can choose tokens before these are read.
    pub(crate) fn new(
        gpu: &Gpu,
        model: &Arc<InferenceModel>,
        cache: &KvCache,
        key: StepKey,
        (sequences, history): (&[StepSequence], usize),
    ) -> Result<Self> {
        let mut state = StepState::new(model, cache, &key, history)?;
        // Compiles and loads all kernels; nothing is lost, since the same step follows.
        state.tokens.set(cache, sequences)?;
        state.run()?;
        let recording = Recording::new(gpu, state, StepState::run)?;
        Ok(Self { key, history, recording })
    }

    pub(crate) fn is_for(&self, key: &StepKey, history: usize) -> bool {
        self.key == *key && history <= self.history
    }

    /// Sets the tokens of the next step.
    pub(crate) fn set(&self, cache: &KvCache, sequences: &[StepSequence]) -> Result<()> {
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

    /// The tokens that steps chose; see [`StepTokens::chosen`].
    ///
    /// # Errors
    /// As [`StepTokens::chosen`].
    pub fn chosen(&self, steps: usize) -> Result<Vec<Vec<Option<u32>>>> {
        Ok(self.recording.state().tokens.chosen(steps)?)
    }

    /// What the selections of the last step kept, if it measures that.
    pub(crate) fn totals(&self) -> Result<SelectionTotals> {
        let mut totals = SelectionTotals::default();
        for [mass, pages] in self.recording.state().scratch.selections()? {
            totals += SelectionTotals {
                selections: 1,
                blocks: pages as u64,
                kept_mass: f64::from(mass),
                true_mass: 0.0,
            };
        }
        Ok(totals)
    }
}

impl StepState {
    fn new(
        model: &Arc<InferenceModel>,
        cache: &KvCache,
        key: &StepKey,
        history: usize,
    ) -> Result<Self> {
        let (config, rows) = (model.config(), key.sequences);
        let tokens = StepTokens::new(cache, rows, key.tokens, history)?;
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
            rope: model.rope.covering(key.tokens, config)?,
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
        if work.chooses {
            tokens.choose_greedy(logits)?;
        }
        Ok(())
    }
}

fn attention_sizes(model: &InferenceModel, options: &CallOptions) -> AttentionSizes {
    AttentionSizes { window_size: options.window_size, ..model.config().attention_sizes() }
}
