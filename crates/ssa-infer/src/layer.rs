//! A decoder layer over a cache.

use ssa_kernels::Tensor;
use ssa_kernels::kv_cache::{CachedSequences, KvCache};
use ssa_kernels::ops::attention::cached::{CachedKeys, append_kv};
use ssa_kernels::ops::bias::bias_fwd;
use ssa_kernels::ops::gate::{GateBranch, gate_apply_fwd, gate_of_scores_fwd};
use ssa_kernels::ops::linear::{LinearWeight, linear_rows_fwd};
use ssa_kernels::ops::rms_norm::{add_rms_norm_fwd, rms_norm_fwd};
use ssa_kernels::ops::rope::{RopeTable, rope_fwd};
use ssa_kernels::ops::step::{HeadMaps, StepGates};
use ssa_kernels::ops::swiglu::swiglu_fwd;
use ssa_model::{AttentionKind, CachedInputs, LayerParameters, Method, ModelConfig};

use crate::weights::packed;
use crate::{CallOptions, Result};

/// The weights of a layer, as far as its architecture has them. Maps of the same input are one
/// matrix.
pub(crate) struct InferenceLayer {
    pub(crate) attention_norm: Tensor,
    /// Queries, keys, values, then the scores of each gate.
    pub(crate) projections: LinearWeight,
    /// Biases of queries, keys and values.
    biases: [Option<Tensor>; 3],
    /// Norms of the heads of queries, keys and values.
    head_norms: [Option<Tensor>; 3],
    /// Gates in the order of their scores.
    gates: Vec<GateBranch>,
    pub(crate) output: LinearWeight,
    pub(crate) mlp_norm: Tensor,
    /// Feed-forward gate and input.
    pub(crate) gate_up: LinearWeight,
    pub(crate) down: LinearWeight,
}

/// What the layers of a call share.
pub(crate) struct CallContext<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) attentions: &'static [&'static dyn AttentionKind],
    pub(crate) options: &'a CallOptions,
    pub(crate) sequences: &'a CachedSequences,
    pub(crate) rope: &'a RopeTable,
    /// Whether the true attention mass is measured, too.
    pub(crate) measures: bool,
}

/// Sums over the selections of a call: one for every query, key/value head and layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SelectionTotals {
    /// Number of selections.
    pub selections: u64,
    /// Blocks that they selected.
    pub blocks: u64,
    /// Estimated attention mass that they keep, each at most 1.
    pub kept_mass: f64,
    /// Attention mass that they keep, each at most 1; only of
    /// [`Engine::measure`](crate::Engine::measure).
    pub true_mass: f64,
}

impl std::ops::AddAssign for SelectionTotals {
    fn add_assign(&mut self, other: Self) {
        self.selections += other.selections;
        self.blocks += other.blocks;
        self.kept_mass += other.kept_mass;
        self.true_mass += other.true_mass;
    }
}

impl InferenceLayer {
    pub(crate) fn new(parameters: &LayerParameters, method: Method) -> Result<Self> {
        let mut gates: Vec<GateBranch> = Vec::new();
        let mut gate_rows: Vec<Tensor> = Vec::new();
        if let Some(g_proj) = &parameters.g_proj {
            let kinds = method.modes().flat_map(|mode| method.attentions(mode));
            for gate in kinds.map(|kind| kind.gate()) {
                if !gates.contains(&gate) {
                    gates.push(gate);
                    gate_rows.push(gate.rows(g_proj)?);
                }
            }
        }
        let mut maps = vec![&parameters.q_proj, &parameters.k_proj, &parameters.v_proj];
        maps.extend(&gate_rows);
        let copy = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::try_clone).transpose();
        Ok(Self {
            attention_norm: parameters.input_layernorm.try_clone()?,
            projections: packed(&maps)?,
            biases: [
                copy(&parameters.q_bias)?,
                copy(&parameters.k_bias)?,
                copy(&parameters.v_bias)?,
            ],
            head_norms: [copy(&parameters.q_norm)?, copy(&parameters.k_norm)?, None],
            gates,
            output: packed(&[&parameters.o_proj])?,
            mlp_norm: parameters.post_attention_layernorm.try_clone()?,
            gate_up: packed(&[&parameters.gate_proj, &parameters.up_proj])?,
            down: packed(&[&parameters.down_proj])?,
        })
    }

    /// Bytes of weights.
    pub(crate) fn weight_bytes(&self) -> usize {
        [&self.projections, &self.output, &self.gate_up, &self.down]
            .map(LinearWeight::bytes)
            .iter()
            .sum()
    }

    /// What a step does to the heads of the projections.
    pub(crate) fn head_maps(&self, eps: f32) -> HeadMaps<'_> {
        let [query_norm, key_norm, _] = self.head_norms.each_ref().map(Option::as_ref);
        let biases = self.biases.each_ref().map(Option::as_ref);
        HeadMaps { biases, norms: [query_norm, key_norm], eps }
    }

    /// The gates of a branch among the projections of a step; `None` without such gates.
    pub(crate) fn step_gates<'a>(
        &self,
        branch: GateBranch,
        projected: &'a Tensor,
        config: &ModelConfig,
    ) -> Option<StepGates<'a>> {
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let before = self.gates.iter().position(|gate| *gate == branch)? * heads;
        let first = (heads + 2 * kv_heads) * config.head_dim + before;
        Some(StepGates { scores: projected, first })
    }

    /// Runs layer number `layer` on `x` `[1, N, hidden]`: writes keys and values to the cache,
    /// attends, and adds to `totals`.
    pub(crate) fn forward(
        &self,
        x: Tensor,
        layer: usize,
        cache: &mut KvCache,
        context: &CallContext<'_>,
        totals: &mut SelectionTotals,
    ) -> Result<Tensor> {
        let eps = context.config.rms_norm_eps as f32;
        let normed = rms_norm_fwd(&x, &self.attention_norm, eps)?.out;
        let attended = self.attention(&normed, layer, cache, context, totals)?;
        let (middle, normed) = add_rms_norm_fwd(attended, &x, &self.mlp_norm, eps)?;
        let mut out = self.mlp(&normed.out)?;
        out.add_assign(&middle)?;
        Ok(out)
    }

    fn attention(
        &self,
        x: &Tensor,
        layer: usize,
        cache: &mut KvCache,
        context: &CallContext<'_>,
        totals: &mut SelectionTotals,
    ) -> Result<Tensor> {
        let (config, sequences) = (context.config, context.sequences);
        let tokens = x.rows();
        let mut projected = linear_rows_fwd(x, &self.projections)?;
        let gate_scores = projected.split_off(self.biases.len());
        let mut heads = Vec::with_capacity(projected.len());
        for ((out, bias), norm) in projected.into_iter().zip(&self.biases).zip(&self.head_norms) {
            let out = if let Some(bias) = bias { bias_fwd(out, bias)? } else { out };
            let shape = [1, tokens, out.last_dim() / config.head_dim, config.head_dim];
            let out = out.reshape(shape)?;
            heads.push(match norm {
                Some(norm) => rms_norm_fwd(&out, norm, config.rms_norm_eps as f32)?.out,
                None => out,
            });
        }
        if let [q, k, v] = heads.as_mut_slice() {
            rope_fwd(q, sequences.sequences(), context.rope)?;
            rope_fwd(k, sequences.sequences(), context.rope)?;
            append_kv(cache, layer, k, v, sequences)?;
        }
        let inputs = CachedInputs {
            q: &heads[0],
            cache,
            layer,
            sequences,
            pages: &context.options.pages,
            window_size: context.options.window_size,
            softmax_scale: config.softmax_scale(),
        };
        let mut mixed: Option<Tensor> = None;
        for kind in context.attentions {
            let attention = kind.cached(&inputs)?;
            if let Some(pages) = &attention.pages {
                let pages = pages.to_host()?;
                *totals += SelectionTotals {
                    selections: pages.kept_mass().len() as u64,
                    blocks: pages.total() as u64,
                    kept_mass: pages.kept_mass().iter().map(|&mass| f64::from(mass)).sum(),
                    true_mass: match context.measures {
                        true => true_mass(&inputs, &attention.output.lse, pages.kept_mass().len())?,
                        false => 0.0,
                    },
                };
            }
            let gate = self.gates.iter().position(|&gate| gate == kind.gate());
            let out = match gate {
                Some(gate) => {
                    gate_apply_fwd(&attention.output.out, &gate_of_scores_fwd(&gate_scores[gate])?)?
                }
                None => attention.output.out,
            };
            match &mut mixed {
                None => mixed = Some(out),
                Some(sum) => sum.add_assign(&out)?,
            }
        }
        let mixed = match mixed {
            Some(mixed) => mixed,
            None => Tensor::zeros_like(inputs.q)?,
        };
        let width = config.num_attention_heads * config.head_dim;
        Ok(single(linear_rows_fwd(&mixed.reshape([1, tokens, width])?, &self.output)?))
    }

    fn mlp(&self, x: &Tensor) -> Result<Tensor> {
        let gate_up = linear_rows_fwd(x, &self.gate_up)?;
        let hidden = swiglu_fwd(&gate_up[0], &gate_up[1])?;
        Ok(single(linear_rows_fwd(&hidden, &self.down)?))
    }
}

/// The attention mass on the selected pages, from the log-sum-exp over them: its mean over the query
/// heads of a group, summed over all `selections`.
fn true_mass(inputs: &CachedInputs<'_>, selected: &Tensor, selections: usize) -> Result<f64> {
    let (all, selected) = (inputs.attend(CachedKeys::All)?.lse.to_vec()?, selected.to_vec()?);
    let share = |(selected, all): (&f32, &f32)| {
        // Where everything is selected, rounding may put the share a little above 1.
        (f64::from(*selected) - f64::from(*all)).exp().min(1.0)
    };
    let group = all.len() as f64 / selections.max(1) as f64;
    Ok(selected.iter().zip(&all).map(share).sum::<f64>() / group)
}

/// The result of the only map of a weight.
fn single(mut results: Vec<Tensor>) -> Tensor {
    results.swap_remove(0)
}
