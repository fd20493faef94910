//! A training step, forward and backward, after `model/` of the model's crate.

use ssa_kernels::ops::attention::gated_pair::PairAlignment;
use ssa_kernels::ops::attention::selection::HostBlockIndices;
use ssa_kernels::ops::embedding;
use ssa_kernels::{DType, Documents};
use ssa_model::{
    AttentionMode, AttentionOptions, Input, LayerPlan, LossDenominators, Losses, Model, ModelError,
    Objective, Parameters, PlannedAttention, TrainBatch,
};

use super::branch::{Importance, Kind, Shared};
use super::layer::Saved;
use super::ops::add_to_weight;
use super::{Rounding, cross_entropy};

/// A training step of one micro-batch.
pub(crate) struct TrainStep {
    pub(crate) batch: TrainBatch,
    pub(crate) objective: Objective,
    pub(crate) stream: AttentionMode,
    pub(crate) denominators: LossDenominators,
}

/// The result of a plain computation.
pub(crate) struct PlainStep {
    pub(crate) losses: Losses,
    pub(crate) grads: Parameters,
    /// Layer by layer.
    pub(crate) importance: Vec<Importance>,
}

impl TrainStep {
    /// How attention runs in this step.
    pub(crate) fn options(&self) -> AttentionOptions {
        AttentionOptions { mode: self.stream, ..self.objective.attention.clone() }
    }

    /// Losses and gradients by the model itself, on its device.
    pub(crate) fn run(&self, model: &Model) -> Result<(Losses, Parameters), ModelError> {
        let streams = vec![self.stream; model.config().num_hidden_layers];
        let mut grads = Parameters::zeros_on(model.config(), &model.device(), DType::F32)?;
        let mut losses = model.step_losses(&self.objective, self.denominators);
        model.train_step(&self.batch, &self.objective, &streams, &mut losses, &mut grads)?;
        Ok((losses.read()?, grads))
    }

    /// The same by a plain computation; the model is on the CPU. It attends to the blocks of
    /// `selections`, one for each layer, or makes its own selections.
    pub(crate) fn plain(
        &self,
        model: &Model,
        rounding: Rounding,
        selections: Option<&[HostBlockIndices]>,
    ) -> Result<PlainStep, ModelError> {
        let (weights, config) = (model.parameters(), model.config());
        let (batch, objective, denominators) = (&self.batch, &self.objective, &self.denominators);
        let everywhere = vec![true; batch.labels().len()];
        let valid = batch.valid().unwrap_or(&everywhere);
        let alignment = PairAlignment {
            options: &objective.alignment,
            gated: objective.gated_alignment,
            valid: Some(valid),
        };
        let shared = shared(model, batch.input(), &objective.attention, rounding)?;
        let plan = references(&objective.attention.method.training_plan(self.stream)?)?;
        let (x, saved) = forward(model, batch.input(), &shared, &plan, selections)?;

        let mut grads = Parameters::zeros(config)?;
        let target_share = 1.0 / denominators.target_tokens.max(1) as f64;
        let norm = rounding.rms_norm(&x, &weights.norm, config.rms_norm_eps)?;
        let head = rounding.weight(weights.head().as_slice()?);
        let factors = [target_share, f64::from(objective.z_loss)];
        let loss = cross_entropy(&norm, &head, batch.labels(), factors, rounding)?;
        add_to_weight(grads.head_mut(), &loss.dweight)?;
        let (dnorm, weight) = (rounding.matrix(loss.dx), (&weights.norm, config.rms_norm_eps));
        let mut dx = rounding.rms_norm_backward(&dnorm, &x, weight, &mut grads.norm)?;

        let layers = config.num_hidden_layers as f64;
        let width = config.num_attention_heads * config.head_dim;
        let mean = 1.0 / (denominators.valid_tokens.max(1) * width) as f64;
        let alignment_scale = f64::from(objective.alpha) * mean / layers;
        for ((saved, weights), grads) in
            saved.iter().zip(&weights.layers).zip(&mut grads.layers).rev()
        {
            shared.backward(
                &mut dx,
                saved,
                weights,
                (&alignment, valid, alignment_scale),
                grads,
            )?;
        }
        let dembedding = embedding::reference::backward(
            &dx,
            batch.input().ids(),
            config.vocab_size,
            config.hidden_size,
        )?;
        add_to_weight(&mut grads.embed_tokens, &dembedding)?;
        let alignment_per_layer =
            saved.iter().map(|saved| Ok(mean * saved.alignment(&alignment, valid)?));
        let alignment_per_layer = alignment_per_layer.collect::<Result<Vec<f64>, ModelError>>()?;
        let losses = Losses {
            cross_entropy: target_share * loss.losses.iter().sum::<f64>(),
            z_loss: target_share * loss.lse_squares.iter().sum::<f64>(),
            alignment: alignment_per_layer.iter().sum::<f64>() / layers,
            alignment_per_layer,
        };
        let importance = saved.into_iter().map(|saved| saved.importance).collect();
        Ok(PlainStep { losses, grads, importance })
    }
}

/// Next-token logits of inference.
pub(crate) fn logits(
    model: &Model,
    input: &Input,
    options: &AttentionOptions,
    rounding: Rounding,
    selections: Option<&[HostBlockIndices]>,
) -> Result<Vec<f64>, ModelError> {
    let shared = shared(model, input, options, rounding)?;
    let plan = references(&options.method.inference_plan(options.mode)?)?;
    let (x, _) = forward(model, input, &shared, &plan, selections)?;
    let weights = model.parameters();
    let norm = rounding.rms_norm(&x, &weights.norm, model.config().rms_norm_eps)?;
    Ok(rounding.linear(&norm, weights.head())?)
}

fn shared<'a>(
    model: &'a Model,
    input: &'a Input,
    options: &'a AttentionOptions,
    rounding: Rounding,
) -> Result<Shared<'a>, ModelError> {
    let rows = Documents::rows(input.batch(), input.tokens())?;
    Ok(Shared { config: model.config(), options, documents: input.documents(), rows, rounding })
}

/// Embedding and layers: the residual stream and what every layer keeps.
fn forward(
    model: &Model,
    input: &Input,
    shared: &Shared<'_>,
    plan: &[(Kind, bool)],
    selections: Option<&[HostBlockIndices]>,
) -> Result<(Vec<f64>, Vec<Saved>), ModelError> {
    let weights = model.parameters();
    let embedding = shared.rounding.weight(weights.embed_tokens.as_slice()?);
    let mut x = embedding::reference::forward(input.ids(), &embedding, shared.config.hidden_size)?;
    let mut kept = Vec::new();
    for (layer, weights) in weights.layers.iter().enumerate() {
        let selection = selections.and_then(|selections| selections.get(layer));
        let (out, saved) = shared.forward(x, weights, plan, selection)?;
        kept.push(saved);
        x = out;
    }
    Ok((x, kept))
}

/// The references of the attentions of a layer, and whether their gated outputs feed the next one.
fn references(plan: &LayerPlan) -> Result<Vec<(Kind, bool)>, ModelError> {
    let reference = |planned: &PlannedAttention| {
        Ok((planned.kind.name().parse::<Kind>()?, planned.mode == plan.stream()))
    };
    plan.attentions().iter().map(reference).collect()
}
