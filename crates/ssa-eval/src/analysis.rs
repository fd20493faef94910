//! How well sparse attention approximates full attention, layer by layer.

use serde::{Deserialize, Serialize};
use ssa_kernels::ops::attention::selection::{SelectionOptions, SelectionRule};
use ssa_model::{AttentionMode, AttentionOptions, Model, SparseBudget};

use crate::attention_means::{
    AttentionMeans, AttentionSums, MeasuredLayer, forward_with_statistics,
};
use crate::batch::EvalBatch;
use crate::losses::{Score, add_scores, check_finite};
use crate::profile::{AttentionProfile, DivergenceSums, ProfileSums};
use crate::{EvalError, Result};

/// The analysis of a model at one sparse budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// The budget of block selection and of sparse inference.
    pub budget: SparseBudget,
    /// Tokens analyzed.
    pub tokens: usize,
    /// One entry per inference mode: full (unless the method has none), sparse.
    pub hidden_states: Vec<ModeAttention>,
    /// Mean over target tokens of `KL(p_full || p_sparse)` of the next-token distributions, in
    /// nats.
    pub kl_full_sparse: Option<f64>,
    /// The details of each mode, in the order of `hidden_states`; empty if not requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<AttentionProfile>,
}

/// Full and sparse attention computed from the hidden states of one inference mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeAttention<M = AttentionMeans> {
    /// The inference mode that produced the hidden states.
    pub mode: AttentionMode,
    /// Means over all layers.
    pub overall: M,
    /// Means of each layer, in order.
    pub layers: Vec<M>,
}

impl<M> ModeAttention<M> {
    /// Maps the means.
    pub fn map<N>(&self, to: impl Fn(&M) -> N) -> ModeAttention<N> {
        ModeAttention {
            mode: self.mode,
            overall: to(&self.overall),
            layers: self.layers.iter().map(to).collect(),
        }
    }
}

impl Analysis {
    /// The entry of one inference mode.
    pub fn under(&self, mode: AttentionMode) -> Option<&ModeAttention> {
        self.hidden_states.iter().find(|attention| attention.mode == mode)
    }
}

/// Analyzes `model` on all batches at one budget. Calls `progress` with the number of finished
/// batches.
///
/// # Errors
/// [`EvalError::NoTargets`] without any target token, [`EvalError::NotFinite`] for a diverged
/// model, and any error of the model.
pub fn analyze(
    model: &Model,
    batches: &[EvalBatch],
    budget: SparseBudget,
    rule: SelectionRule,
    progress: &mut dyn FnMut(usize),
) -> Result<Analysis> {
    Analyzer::new(model, budget, rule, false).run(batches, progress)
}

/// As [`analyze`], and in the same pass the [profiles](AttentionProfile) of each mode.
///
/// # Errors
/// As [`analyze`].
pub fn analyze_in_detail(
    model: &Model,
    batches: &[EvalBatch],
    budget: SparseBudget,
    rule: SelectionRule,
    progress: &mut dyn FnMut(usize),
) -> Result<Analysis> {
    Analyzer::new(model, budget, rule, true).run(batches, progress)
}

/// The sums of an analysis.
struct Analyzer<'a> {
    model: &'a Model,
    budget: SparseBudget,
    selection: SelectionOptions,
    modes: Vec<ModeSums>,
    divergences: DivergenceSums,
}

/// The sums of one inference mode.
struct ModeSums {
    mode: AttentionMode,
    layers: Vec<AttentionSums>,
    score: Score,
    profile: Option<ProfileSums>,
}

impl<'a> Analyzer<'a> {
    fn new(model: &'a Model, budget: SparseBudget, rule: SelectionRule, in_detail: bool) -> Self {
        let config = model.config();
        let (layers, heads) = (config.num_hidden_layers, config.num_attention_heads);
        let sums = |mode| ModeSums {
            mode,
            layers: vec![AttentionSums::default(); layers],
            score: Score::default(),
            profile: in_detail.then(|| ProfileSums::new(layers, heads)),
        };
        Self {
            model,
            budget,
            selection: budget.selection(rule),
            modes: config.attention_method.modes().map(sums).collect(),
            divergences: DivergenceSums::default(),
        }
    }

    fn run(mut self, batches: &[EvalBatch], progress: &mut dyn FnMut(usize)) -> Result<Analysis> {
        for (index, batch) in batches.iter().enumerate() {
            self.add(index, batch)?;
            progress(index + 1);
        }
        self.finish(batches).ok_or(EvalError::NoTargets)
    }

    fn add(&mut self, index: usize, batch: &EvalBatch) -> Result<()> {
        let Self { model, selection, .. } = *self;
        let config = model.config();
        let mut hidden = Vec::new();
        for ModeSums { mode, layers, profile, .. } in &mut self.modes {
            let attention = AttentionOptions { selection, ..config.attention_options(*mode) };
            let mut observe = |layer: &MeasuredLayer<'_>| match profile {
                Some(profile) => profile.add(layer),
                None => Ok(()),
            };
            hidden.push(forward_with_statistics(
                model,
                batch,
                &attention,
                &selection,
                layers,
                &mut observe,
            )?);
        }
        let mut scores: Vec<Score> = self.modes.iter().map(|sums| sums.score).collect();
        add_scores(model, &hidden, &batch.labels, &mut scores)?;
        check_finite(&scores, index, |mode| match self.modes[mode].mode {
            AttentionMode::Full => "full-attention".to_owned(),
            AttentionMode::Sparse => format!("sparse {}", self.budget),
        })?;
        self.modes.iter_mut().zip(scores).for_each(|(sums, score)| sums.score = score);
        match &hidden[..] {
            [full, sparse] if self.modes[0].profile.is_some() => {
                Ok(self.divergences.add(model, batch, [full, sparse])?)
            }
            _ => Ok(()),
        }
    }

    /// The analysis; `None` without a token.
    fn finish(&self, batches: &[EvalBatch]) -> Option<Analysis> {
        let has_full = self.modes.len() > 1;
        let divergences = has_full.then_some(&self.divergences);
        let attention = |sums: &ModeSums| mode_attention(sums.mode, &sums.layers);
        let profile = |sums: &ModeSums| Some(sums.profile.as_ref()?.finish(sums.mode, divergences));
        let sparse = self.modes.last().map_or_else(Score::default, |sums| sums.score);
        Some(Analysis {
            budget: self.budget,
            tokens: batches.iter().map(EvalBatch::valid_tokens).sum(),
            hidden_states: self.modes.iter().map(attention).collect::<Option<_>>()?,
            kl_full_sparse: (has_full && sparse.targets > 0)
                .then(|| sparse.kl / sparse.targets as f64),
            profiles: self.modes.iter().filter_map(profile).collect::<Option<_>>()?,
        })
    }
}

fn mode_attention(mode: AttentionMode, layers: &[AttentionSums]) -> Option<ModeAttention> {
    Some(ModeAttention {
        mode,
        overall: AttentionSums::overall(layers)?,
        layers: layers.iter().map(AttentionSums::means).collect::<Option<_>>()?,
    })
}
