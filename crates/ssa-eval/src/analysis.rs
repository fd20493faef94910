//! How well sparse attention approximates full attention, layer by layer.

use serde::{Deserialize, Serialize};
use ssa_kernels::ops::attention::selection::{SelectionOptions, SelectionRule};
use ssa_model::{AttentionMode, AttentionOptions, Model, SparseBudget};
use ssa_ranks::Ranks;

use crate::attention_means::{
    AttentionMeans, AttentionSums, MeasuredLayer, forward_with_statistics,
};
use crate::batch::EvalBatch;
use crate::losses::{add_scores, check_finite};
use crate::profile::{AttentionProfile, DivergenceSums, ProfileSums};
use crate::shared::{Sums, shared};
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

/// Analyzes `model` on all batches at one budget. Ranks share the batches, and each has the
/// results. Calls `progress` with the number of finished batches.
///
/// # Errors
/// [`EvalError::NoTargets`] without any target token, [`EvalError::NotFinite`] for a diverged
/// model, [`EvalError::Ranks`] if a rank is lost, and any error of the model.
pub fn analyze(
    model: &Model,
    batches: &[EvalBatch],
    budget: SparseBudget,
    rule: SelectionRule,
    ranks: &mut Ranks,
    progress: &mut dyn FnMut(usize),
) -> Result<Analysis> {
    Analyzer::new(model, budget, rule, false).run(batches, ranks, progress)
}

/// As [`analyze`] in a process without other ranks, and in the same pass the
/// [profiles](AttentionProfile) of each mode.
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
    Analyzer::new(model, budget, rule, true).run(batches, &mut Ranks::alone(), progress)
}

/// An analysis of one model.
struct Analyzer<'a> {
    model: &'a Model,
    budget: SparseBudget,
    selection: SelectionOptions,
    modes: Vec<AttentionMode>,
    /// One for each mode if they are asked for; only of the batches of this rank.
    profiles: Vec<ProfileSums>,
    divergences: DivergenceSums,
}

impl<'a> Analyzer<'a> {
    fn new(model: &'a Model, budget: SparseBudget, rule: SelectionRule, in_detail: bool) -> Self {
        let config = model.config();
        let (layers, heads) = (config.num_hidden_layers, config.num_attention_heads);
        let modes: Vec<AttentionMode> = config.attention_method.modes().collect();
        let profiles = modes.iter().filter(|_| in_detail);
        Self {
            model,
            budget,
            selection: budget.selection(rule),
            profiles: profiles.map(|_| ProfileSums::new(layers, heads)).collect(),
            modes,
            divergences: DivergenceSums::default(),
        }
    }

    fn run(
        mut self,
        batches: &[EvalBatch],
        ranks: &mut Ranks,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Analysis> {
        let modes = self.modes.len();
        let lengths = [modes, modes * self.model.config().num_hidden_layers];
        let sums = shared(batches, lengths, ranks, |index, batch, sums| {
            self.add(index, batch, sums)?;
            progress(index + 1);
            Ok(())
        })?;
        self.finish(batches, &sums).ok_or(EvalError::NoTargets)
    }

    /// Adds a batch: the score of each mode, and the statistics of each layer of each mode.
    fn add(
        &mut self,
        index: usize,
        batch: &EvalBatch,
        (scores, layers): &mut Sums<AttentionSums>,
    ) -> Result<()> {
        let Self { model, selection, .. } = *self;
        let config = model.config();
        let mut profiles = self.profiles.iter_mut();
        let mut hidden = Vec::new();
        let of_modes = layers.chunks_mut(config.num_hidden_layers);
        for (&mode, layers) in self.modes.iter().zip(of_modes) {
            let attention = AttentionOptions { selection, ..config.attention_options(mode) };
            let mut profile = profiles.next();
            let mut observe = |layer: &MeasuredLayer<'_>| match &mut profile {
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
        add_scores(model, &hidden, &batch.labels, scores)?;
        check_finite(scores, index, |mode| match self.modes[mode] {
            AttentionMode::Full => "full-attention".to_owned(),
            AttentionMode::Sparse => format!("sparse {}", self.budget),
        })?;
        match &hidden[..] {
            [full, sparse] if !self.profiles.is_empty() => {
                Ok(self.divergences.add(model, batch, [full, sparse])?)
            }
            _ => Ok(()),
        }
    }

    /// The analysis; `None` without a token.
    fn finish(
        &self,
        batches: &[EvalBatch],
        (scores, layers): &Sums<AttentionSums>,
    ) -> Option<Analysis> {
        let has_full = self.modes.len() > 1;
        let divergences = has_full.then_some(&self.divergences);
        let of_modes = self.modes.iter().zip(layers.chunks(self.model.config().num_hidden_layers));
        let attention = of_modes.map(|(&mode, layers)| mode_attention(mode, layers));
        let profiles = self.modes.iter().zip(&self.profiles);
        let sparse = scores.last().copied().unwrap_or_default();
        Some(Analysis {
            budget: self.budget,
            tokens: batches.iter().map(EvalBatch::valid_tokens).sum(),
            hidden_states: attention.collect::<Option<_>>()?,
            kl_full_sparse: (has_full && sparse.targets > 0)
                .then(|| sparse.kl / sparse.targets as f64),
            profiles: profiles
                .map(|(&mode, profile)| profile.finish(mode, divergences))
                .collect::<Option<_>>()?,
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
