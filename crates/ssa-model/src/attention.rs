//! The attention half of a layer after the projections: the planned attentions, their gates, and
//! the output projection.
//!
//! Every method runs through this code. A [`LayerPlan`] says which attentions a layer computes from
//! the same q, k and v and which of them feed the next layer; training ssa computes two, feeds one,
//! and aligns them.

use ssa_kernels::ops::attention::gated_pair::{
    GatedPair, GatedPairGrads, PairAlignment, gated_pair_bwd, gated_pair_fwd,
};
use ssa_kernels::ops::attention::{AttentionCall, AttentionGrads, AttentionMode};
use ssa_kernels::ops::gate::{GateBranch, gate_apply_bwd, gate_apply_fwd, gate_bwd, gate_fwd};
use ssa_kernels::ops::linear::{linear_bwd_input, linear_fwd};
use ssa_kernels::ops::rope::RopeTable;
use ssa_kernels::{Documents, Scalar, Tensor};

use crate::gradients::{add_weight_gradient, with_gradient_of};
use crate::method::{AttentionInputs, LayerPlan, PlannedAttention, SavedAttention};
use crate::options::{AttentionOptions, DocumentMasking};
use crate::projection::{Projection, QueryKeyValue};
use crate::{LayerParameters, Result};

/// What all layers of a call share.
#[derive(Clone, Copy)]
pub(crate) struct AttentionContext<'a> {
    pub(crate) options: &'a AttentionOptions,
    pub(crate) documents: &'a Documents,
    /// One document per row: what the sparse stream sees under [`DocumentMasking::FullOnly`].
    pub(crate) rows: &'a Documents,
    pub(crate) rope: &'a RopeTable,
    /// `head_dim^-0.5`.
    pub(crate) softmax_scale: f32,
}

impl<'a> AttentionContext<'a> {
    /// The inputs of an attention of a mode.
    fn inputs(&self, qkv: &'a QueryKeyValue, mode: AttentionMode) -> AttentionInputs<'a> {
        let documents = match (self.options.document_masking, mode) {
            (DocumentMasking::Both, _) | (_, AttentionMode::Full) => self.documents,
            (DocumentMasking::FullOnly, AttentionMode::Sparse) => self.rows,
        };
        let QueryKeyValue { q, k, v } = qkv;
        AttentionInputs {
            call: AttentionCall { q, k, v, documents, softmax_scale: self.softmax_scale },
            selection: &self.options.selection,
            window_size: self.options.window_size,
        }
    }
}

/// What the backward pass needs besides the normed input.
pub(crate) struct AttentionSaved {
    projection: Projection,
    gates: Gates,
    branches: Vec<Branch>,
    /// The mode whose gated outputs feed the next layer.
    stream: AttentionMode,
    alignment_sum: Option<Scalar>,
}

/// A computed attention.
struct Branch {
    mode: AttentionMode,
    gate: GateBranch,
    saved: SavedAttention,
}

/// The sigmoid gates `[B, T, HQ]` in use; none in a model without gates.
struct Gates(Vec<(GateBranch, Tensor)>);

impl Gates {
    fn forward(x: &Tensor, weights: &LayerParameters, plan: &LayerPlan) -> Result<Self> {
        let mut gates = Self(Vec::new());
        let Some(g_proj) = &weights.g_proj else { return Ok(gates) };
        for branch in plan.attentions().iter().map(|planned| planned.kind.gate()) {
            if gates.0.iter().all(|(present, _)| *present != branch) {
                gates.0.push((branch, gate_fwd(x, g_proj, branch)?));
            }
        }
        Ok(gates)
    }

    fn zeros_like(other: &Self) -> Result<Self> {
        let gates = other.0.iter().map(|(branch, gate)| Ok((*branch, Tensor::zeros_like(gate)?)));
        gates.collect::<Result<_>>().map(Self)
    }

    fn get(&self, branch: GateBranch) -> Option<&Tensor> {
        self.0.iter().find(|(present, _)| *present == branch).map(|(_, gate)| gate)
    }

    fn get_mut(&mut self, branch: GateBranch) -> Option<&mut Tensor> {
        self.0.iter_mut().find(|(present, _)| *present == branch).map(|(_, gate)| gate)
    }
}

/// Runs the planned attentions on projected inputs and returns the layer's attention output `[B, T,
/// hidden]`.
///
/// With `alignment`, a layer of both streams also sums the alignment loss between them.
pub(crate) fn forward(
    x: &Tensor,
    projection: Projection,
    weights: &LayerParameters,
    plan: &LayerPlan,
    context: &AttentionContext<'_>,
    alignment: Option<&PairAlignment<'_>>,
) -> Result<(Tensor, AttentionSaved)> {
    let gates = Gates::forward(x, weights, plan)?;
    let compute = |planned: &PlannedAttention| {
        let saved = planned.kind.forward(&context.inputs(&projection.qkv, planned.mode))?;
        Ok(Branch { mode: planned.mode, gate: planned.kind.gate(), saved })
    };
    let branches = plan.attentions().iter().map(compute).collect::<Result<_>>()?;
    let stream = plan.stream();
    let mut saved = AttentionSaved { projection, gates, branches, stream, alignment_sum: None };
    let mixed = match (saved.pair(), alignment) {
        (Some(pair), Some(alignment)) => {
            let (mixed, sum) = gated_pair_fwd(&pair, alignment)?;
            saved.alignment_sum = Some(sum);
            rows_of_tokens(mixed)?
        }
        _ => saved.mixed()?,
    };
    let out = linear_fwd(&mixed, &weights.o_proj)?;
    Ok((out, saved))
}

/// The heads of each token `[B, T, HQ, D]` as one row `[B, T, HQ * D]`.
fn rows_of_tokens(heads: Tensor) -> Result<Tensor> {
    let [batch, tokens] = [heads.shape()[0], heads.shape()[1]];
    let width = heads.len() / (batch * tokens);
    Ok(heads.reshape([batch, tokens, width])?)
}

impl AttentionSaved {
    /// Takes the sum of the alignment loss over the valid tokens, heads and dimensions of this
    /// layer. Returns `None` if it was not requested or the layer does not compute both streams.
    pub(crate) fn take_alignment_sum(&mut self) -> Option<Scalar> {
        self.alignment_sum.take()
    }

    /// The input of the output projection `[B, T, HQ * D]`: the sum of the gated outputs of the
    /// stream.
    fn mixed(&self) -> Result<Tensor> {
        let mut mixed: Option<Tensor> = None;
        for branch in self.branches.iter().filter(|branch| branch.mode == self.stream) {
            let out = branch.saved.out();
            let gated = match self.gates.get(branch.gate) {
                Some(gate) => gate_apply_fwd(out, gate)?,
                None => out.try_clone()?,
            };
            match &mut mixed {
                None => mixed = Some(gated),
                Some(sum) => sum.add_assign(&gated)?,
            }
        }
        rows_of_tokens(match mixed {
            Some(mixed) => mixed,
            None => Tensor::zeros_like(&self.projection.qkv.q)?,
        })
    }

    /// The outputs of the two streams with their gate, if the layer computed both and has one.
    fn pair(&self) -> Option<GatedPair<'_>> {
        match self.branches.as_slice() {
            [full, sparse] if full.mode != sparse.mode => Some(GatedPair {
                full: full.saved.out(),
                sparse: sparse.saved.out(),
                gate: self.gates.get(full.gate)?,
                chosen: self.stream,
            }),
            _ => None,
        }
    }

    /// Returns the gradients of the attention outputs and of the gates. `alignment` carries the
    /// factor of the alignment sum in the loss.
    fn outputs_backward(
        &self,
        dmixed: &Tensor,
        (alignment, scale): (&PairAlignment<'_>, f32),
    ) -> Result<(Vec<Tensor>, Gates)> {
        let mut dgates = Gates::zeros_like(&self.gates)?;
        let douts = self.branches.iter().map(|_| Tensor::zeros_like(dmixed));
        let mut douts = douts.collect::<Result<Vec<_>, _>>()?;
        let dgate_of_pair = self.branches.first().and_then(|full| dgates.get_mut(full.gate));
        match (self.pair(), dgate_of_pair, douts.as_mut_slice()) {
            (Some(pair), Some(dgate), [dfull, dsparse]) => {
                let grads = GatedPairGrads { dfull, dsparse, dgate };
                gated_pair_bwd(dmixed, &pair, alignment, scale, grads)?;
            }
            (_, _, douts) => {
                let fed = self.branches.iter().zip(douts).filter(|(it, _)| it.mode == self.stream);
                for (branch, dout) in fed {
                    match (self.gates.get(branch.gate), dgates.get_mut(branch.gate)) {
                        (Some(gate), Some(dgate)) => {
                            gate_apply_bwd(dmixed, branch.saved.out(), gate, dout, dgate)?;
                        }
                        _ => dout.add_assign(dmixed)?,
                    }
                }
            }
        }
        Ok((douts, dgates))
    }

    /// Adds to the weight gradients and returns the gradient of the normed input.
    ///
    /// `dout` is the gradient of the layer's attention output; `alignment` carries the factor of
    /// its sum in the loss.
    pub(crate) fn backward(
        &self,
        dout: &Tensor,
        x: &Tensor,
        weights: &LayerParameters,
        context: &AttentionContext<'_>,
        alignment: (&PairAlignment<'_>, f32),
        grads: &mut LayerParameters,
    ) -> Result<Tensor> {
        if !grads.o_proj.is_empty() {
            add_weight_gradient(dout, &self.mixed()?, &mut grads.o_proj)?;
        }
        let QueryKeyValue { q, k, v } = &self.projection.qkv;
        let mixed_shape = [x.shape()[0], x.shape()[1], weights.o_proj.shape()[1]];
        let mut dmixed = Tensor::zeros_on(&x.device(), x.dtype(), mixed_shape)?;
        linear_bwd_input(dout, &weights.o_proj, &mut dmixed)?;
        let dmixed = dmixed.reshape(q.shape())?;

        let (douts, dgates) = self.outputs_backward(&dmixed, alignment)?;
        let mut dqkv = AttentionGrads::zeros_like(q, k, v)?;
        for (branch, dout) in self.branches.iter().zip(&douts) {
            let inputs = context.inputs(&self.projection.qkv, branch.mode);
            branch.saved.backward(dout, &inputs, &mut dqkv)?;
        }

        let mut dx = Tensor::zeros_like(x)?;
        if let (Some(g_proj), Some(dg_proj)) = (&weights.g_proj, &mut grads.g_proj) {
            with_gradient_of(g_proj, dg_proj, |dg_proj| {
                for ((branch, gate), (_, dgate)) in self.gates.0.iter().zip(&dgates.0) {
                    gate_bwd(dgate, gate, x, g_proj, *branch, &mut dx, dg_proj)?;
                }
                Ok(())
            })?;
        }
        let positions = (context.documents, context.rope);
        self.projection.backward(dqkv, x, weights, positions, &mut dx, grads)?;
        Ok(dx)
    }
}
