//! The attention half of a layer: projections, RoPE, the planned attentions, their gates, and the
//! output projection.
//!
//! All four methods run through this code. A [`plan`] says which attentions a layer computes from
//! the same q, k and v and which of them go on; training ssa computes two, sends one on, and aligns
//! them.

mod branch;
pub(crate) mod plan;

use ssa_kernels::ops::attention::AttentionGrads;
use ssa_kernels::ops::attention::gated_pair::{
    GatedPair, GatedPairGrads, PairAlignment, Stream, gated_pair_bwd, gated_pair_fwd,
};
use ssa_kernels::ops::gate::{GateBranch, gate_apply_bwd, gate_apply_fwd, gate_bwd, gate_fwd};
use ssa_kernels::ops::linear::{linear_bwd_input, linear_bwd_weight, linear_fwd};
use ssa_kernels::ops::rope::{rope_bwd, rope_fwd};
use ssa_kernels::{Scalar, Tensor};

pub(crate) use branch::{AttentionContext, Branch, QueryKeyValue};
use plan::{AttentionKind, PlannedAttention};

use crate::{LayerParameters, Result};

/// What the backward needs besides the normed input.
pub(crate) struct AttentionSaved {
    qkv: QueryKeyValue,
    gates: Gates,
    branches: Vec<Branch>,
    alignment_sum: Option<Scalar>,
}

/// The sigmoid gates `[B, T, HQ]` in use.
struct Gates(Vec<(GateBranch, Tensor)>);

impl Gates {
    fn forward(x: &Tensor, weights: &LayerParameters, plan: &[PlannedAttention]) -> Result<Self> {
        let mut gates = Self(Vec::new());
        for branch in plan.iter().map(|planned| planned.kind.gate()) {
            if gates.0.iter().all(|(present, _)| *present != branch) {
                gates.0.push((branch, gate_fwd(x, &weights.g_proj, branch)?));
            }
        }
        Ok(gates)
    }

    fn zeros_like(other: &Self) -> Self {
        Self(other.0.iter().map(|(branch, gate)| (*branch, Tensor::zeros_like(gate))).collect())
    }

    /// The gate of an attention: full and sparse share one.
    fn of(&self, kind: AttentionKind) -> &Tensor {
        &self.0[self.index(kind)].1
    }

    fn of_mut(&mut self, kind: AttentionKind) -> &mut Tensor {
        let index = self.index(kind);
        &mut self.0[index].1
    }

    fn index(&self, kind: AttentionKind) -> usize {
        self.0.iter().take_while(|(branch, _)| *branch != kind.gate()).count()
    }
}

/// Projects the normed input `x` `[B, T, hidden]` to q, k and v and rotates q and k.
pub(crate) fn project(
    x: &Tensor,
    weights: &LayerParameters,
    context: &AttentionContext<'_>,
) -> Result<QueryKeyValue> {
    let head_dim = context.head_dim;
    let heads = |weight: &Tensor| -> Result<Tensor> {
        let shape = [x.shape()[0], x.shape()[1], weight.shape()[0] / head_dim, head_dim];
        Ok(linear_fwd(x, weight)?.reshape(shape)?)
    };
    let mut qkv = QueryKeyValue {
        q: heads(&weights.q_proj)?,
        k: heads(&weights.k_proj)?,
        v: heads(&weights.v_proj)?,
    };
    rope_fwd(&mut qkv.q, context.documents, context.rope)?;
    rope_fwd(&mut qkv.k, context.documents, context.rope)?;
    Ok(qkv)
}

/// Runs the planned attentions on projected inputs and returns the layer's attention output `[B, T,
/// hidden]`.
///
/// With `alignment` a layer of both streams also sums the alignment loss between them.
pub(crate) fn forward(
    x: &Tensor,
    qkv: QueryKeyValue,
    weights: &LayerParameters,
    plan: &[PlannedAttention],
    context: &AttentionContext<'_>,
    alignment: Option<&PairAlignment<'_>>,
) -> Result<(Tensor, AttentionSaved)> {
    let gates = Gates::forward(x, weights, plan)?;
    let branches = branch::forward(plan, &qkv, context)?;
    let mut saved = AttentionSaved { qkv, gates, branches, alignment_sum: None };
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
    /// Sum of the alignment loss over the valid tokens, heads and dimensions of this layer; none if
    /// it was not asked for or the layer does not compute both streams.
    pub(crate) fn take_alignment_sum(&mut self) -> Option<Scalar> {
        self.alignment_sum.take()
    }

    /// The input of the output projection `[B, T, HQ * D]`: the sum of the gated outputs that go
    /// on.
    fn mixed(&self) -> Result<Tensor> {
        let mut mixed: Option<Tensor> = None;
        for branch in self.branches.iter().filter(|branch| branch.contributes) {
            let gated = gate_apply_fwd(&branch.output.out, self.gates.of(branch.kind))?;
            match &mut mixed {
                None => mixed = Some(gated),
                Some(sum) => sum.add_assign(&gated)?,
            }
        }
        rows_of_tokens(mixed.unwrap_or_else(|| Tensor::zeros_like(&self.qkv.q)))
    }

    /// The outputs of full and sparse attention with their gate, if the layer computed both and one
    /// goes on.
    fn pair(&self) -> Option<GatedPair<'_>> {
        let [full, sparse] = self.branches.as_slice() else { return None };
        let is_pair = [full.kind, sparse.kind] == [AttentionKind::Full, AttentionKind::Sparse];
        let chosen = match [full.contributes, sparse.contributes] {
            [true, false] => Stream::Full,
            [false, true] => Stream::Sparse,
            _ => return None,
        };
        let gate = self.gates.of(full.kind);
        is_pair.then_some(GatedPair {
            full: &full.output.out,
            sparse: &sparse.output.out,
            gate,
            chosen,
        })
    }

    /// The gradients of the attentions' outputs and of the gates.
    fn outputs_backward(
        &self,
        dmixed: &Tensor,
        alignment: Option<(&PairAlignment<'_>, f32)>,
    ) -> Result<(Vec<Tensor>, Gates)> {
        let mut dgates = Gates::zeros_like(&self.gates);
        let mut douts: Vec<Tensor> =
            self.branches.iter().map(|_| Tensor::zeros_like(dmixed)).collect();
        match (self.pair(), alignment, douts.as_mut_slice()) {
            (Some(pair), Some((alignment, scale)), [dfull, dsparse]) => {
                let dgate = dgates.of_mut(AttentionKind::Full);
                gated_pair_bwd(
                    dmixed,
                    &pair,
                    alignment,
                    scale,
                    GatedPairGrads { dfull, dsparse, dgate },
                )?;
            }
            _ => {
                let contributing =
                    self.branches.iter().zip(&mut douts).filter(|(branch, _)| branch.contributes);
                for (branch, dout) in contributing {
                    let (gate, dgate) = (self.gates.of(branch.kind), dgates.of_mut(branch.kind));
                    gate_apply_bwd(dmixed, &branch.output.out, gate, dout, dgate)?;
                }
            }
        }
        Ok((douts, dgates))
    }

    /// Adds to the weight gradients and returns the gradient of the normed input.
    ///
    /// `dout` is the gradient of the layer's attention output; `alignment` comes with the factor of
    /// its sum in the loss.
    pub(crate) fn backward(
        &self,
        dout: &Tensor,
        x: &Tensor,
        weights: &LayerParameters,
        context: &AttentionContext<'_>,
        alignment: Option<(&PairAlignment<'_>, f32)>,
        grads: &mut LayerParameters,
    ) -> Result<Tensor> {
        linear_bwd_weight(dout, &self.mixed()?, &mut grads.o_proj)?;
        let QueryKeyValue { q, k, v } = &self.qkv;
        let mixed_shape = [x.shape()[0], x.shape()[1], weights.o_proj.shape()[1]];
        let mut dmixed = Tensor::zeros_on(&x.device(), x.dtype(), mixed_shape)?;
        linear_bwd_input(dout, &weights.o_proj, &mut dmixed)?;
        let dmixed = dmixed.reshape(q.shape())?;

        let (douts, dgates) = self.outputs_backward(&dmixed, alignment)?;
        let mut dqkv = AttentionGrads::zeros_like(q, k, v);
        branch::backward(&self.branches, &douts, &self.qkv, context, &mut dqkv)?;
        rope_bwd(&mut dqkv.dq, context.documents, context.rope)?;
        rope_bwd(&mut dqkv.dk, context.documents, context.rope)?;

        let mut dx = Tensor::zeros_like(x);
        for ((branch, gate), (_, dgate)) in self.gates.0.iter().zip(&dgates.0) {
            gate_bwd(dgate, gate, x, &weights.g_proj, *branch, &mut dx, &mut grads.g_proj)?;
        }
        for (dhead, weight, dweight) in [
            (dqkv.dq, &weights.q_proj, &mut grads.q_proj),
            (dqkv.dk, &weights.k_proj, &mut grads.k_proj),
            (dqkv.dv, &weights.v_proj, &mut grads.v_proj),
        ] {
            let dhead = dhead.reshape([x.shape()[0], x.shape()[1], weight.shape()[0]])?;
            linear_bwd_weight(&dhead, x, dweight)?;
            linear_bwd_input(&dhead, weight, &mut dx)?;
        }
        Ok(dx)
    }
}
