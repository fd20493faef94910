//! The attention half of a layer: projections, RoPE, the planned attentions, their gates, and the output
//! projection.
//!
//! All four methods run through this code. A [`plan`] says which attentions a layer computes from the same q, k
//! and v and which of them go on; training ssa computes two, sends one on, and aligns them.

mod branch;
pub(crate) mod plan;

use ssa_kernels::ops::attention::AttentionGrads;
use ssa_kernels::ops::attention::alignment::{AlignmentOptions, alignment_bwd, alignment_fwd};
use ssa_kernels::ops::gate::{GateBranch, gate_apply_bwd, gate_apply_fwd, gate_bwd, gate_fwd};
use ssa_kernels::ops::linear::{linear_bwd_input, linear_bwd_weight, linear_fwd};
use ssa_kernels::ops::rope::{rope_bwd, rope_fwd};
use ssa_kernels::{Scalar, Tensor};

pub(crate) use branch::{AttentionContext, Branch, QueryKeyValue};
use plan::{AttentionKind, PlannedAttention};

use crate::{LayerParameters, Result};

/// How the outputs of the two streams are pulled together.
#[derive(Clone, Copy)]
pub(crate) struct Alignment<'a> {
    pub(crate) options: &'a AlignmentOptions,
    /// Compare gated outputs (as released) or the bare ones (as in the paper's Algorithm 1).
    pub(crate) gated: bool,
    /// Which tokens count; `None` means all.
    pub(crate) valid: Option<&'a [bool]>,
}

/// What the backward needs besides the normed input.
pub(crate) struct AttentionSaved {
    qkv: QueryKeyValue,
    gates: Gates,
    branches: Vec<Branch>,
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

    /// Position of the gate of an attention: full and sparse share one.
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
    let mut qkv =
        QueryKeyValue { q: heads(&weights.q_proj)?, k: heads(&weights.k_proj)?, v: heads(&weights.v_proj)? };
    rope_fwd(&mut qkv.q, context.documents, context.rope)?;
    rope_fwd(&mut qkv.k, context.documents, context.rope)?;
    Ok(qkv)
}

/// Runs the planned attentions on projected inputs and returns the layer's attention output `[B, T, hidden]`.
pub(crate) fn forward(
    x: &Tensor,
    qkv: QueryKeyValue,
    weights: &LayerParameters,
    plan: &[PlannedAttention],
    context: &AttentionContext<'_>,
) -> Result<(Tensor, AttentionSaved)> {
    let gates = Gates::forward(x, weights, plan)?;
    let branches: Vec<Branch> =
        plan.iter().map(|planned| Branch::forward(*planned, &qkv, context)).collect::<Result<_>>()?;
    let saved = AttentionSaved { qkv, gates, branches };
    let out = linear_fwd(&saved.mixed()?, &weights.o_proj)?;
    Ok((out, saved))
}

impl AttentionSaved {
    /// The gated output of one attention.
    fn gated(&self, branch: &Branch) -> Result<Tensor> {
        let (_, gate) = &self.gates.0[self.gates.index(branch.kind)];
        Ok(gate_apply_fwd(&branch.output.out, gate)?)
    }

    /// The input of the output projection `[B, T, HQ * D]`: the sum of the gated outputs that go on.
    fn mixed(&self) -> Result<Tensor> {
        let mut mixed: Option<Tensor> = None;
        for branch in self.branches.iter().filter(|branch| branch.contributes) {
            let gated = self.gated(branch)?;
            match &mut mixed {
                None => mixed = Some(gated),
                Some(sum) => sum.add_assign(&gated)?,
            }
        }
        let mixed = mixed.unwrap_or_else(|| Tensor::zeros_like(&self.qkv.q));
        let [batch, tokens] = [mixed.shape()[0], mixed.shape()[1]];
        let width = mixed.len() / (batch * tokens);
        Ok(mixed.reshape([batch, tokens, width])?)
    }

    /// The positions of the full and the sparse attention, if the layer computed both.
    fn pair(&self) -> Option<[usize; 2]> {
        let position = |kind| self.branches.iter().position(|branch| branch.kind == kind);
        Some([position(AttentionKind::Full)?, position(AttentionKind::Sparse)?])
    }

    /// Sum of the alignment loss over the valid tokens, heads and dimensions of this layer.
    pub(crate) fn alignment_sum(&self, alignment: &Alignment<'_>) -> Result<Scalar> {
        let Some([full, sparse]) = self.pair().map(|pair| pair.map(|index| &self.branches[index])) else {
            return Ok(Scalar::new(0.0));
        };
        let (valid, options) = (alignment.valid, alignment.options);
        Ok(if alignment.gated {
            alignment_fwd(&self.gated(full)?, &self.gated(sparse)?, valid, options)?
        } else {
            alignment_fwd(&full.output.out, &sparse.output.out, valid, options)?
        })
    }

    /// Adds `scale` times the gradient of [`Self::alignment_sum`] to the gradients of the outputs it compares.
    fn alignment_backward(
        &self,
        alignment: &Alignment<'_>,
        scale: f32,
        dgated: &mut [Tensor],
        douts: &mut [Tensor],
    ) -> Result<()> {
        let Some(pair @ [full, sparse]) = self.pair() else { return Ok(()) };
        let outs = pair.map(|index| &self.branches[index]);
        let (valid, options) = (alignment.valid, alignment.options);
        let targets = if alignment.gated { dgated } else { douts };
        let Ok([dfull, dsparse]) = targets.get_disjoint_mut([full, sparse]) else { return Ok(()) };
        if alignment.gated {
            let [full, sparse] = [self.gated(outs[0])?, self.gated(outs[1])?];
            alignment_bwd(&full, &sparse, valid, options, scale, dfull, dsparse)?;
        } else {
            let [full, sparse] = outs.map(|branch| &branch.output.out);
            alignment_bwd(full, sparse, valid, options, scale, dfull, dsparse)?;
        }
        Ok(())
    }

    /// Adds to the weight gradients and returns the gradient of the normed input.
    ///
    /// `dout` is the gradient of the layer's attention output; `alignment` comes with the factor of its sum in
    /// the loss.
    pub(crate) fn backward(
        &self,
        dout: &Tensor,
        x: &Tensor,
        weights: &LayerParameters,
        context: &AttentionContext<'_>,
        alignment: Option<(&Alignment<'_>, f32)>,
        grads: &mut LayerParameters,
    ) -> Result<Tensor> {
        linear_bwd_weight(dout, &self.mixed()?, &mut grads.o_proj)?;
        let QueryKeyValue { q, k, v } = &self.qkv;
        let mixed_shape = [x.shape()[0], x.shape()[1], weights.o_proj.shape()[1]];
        let mut dmixed = Tensor::zeros_on(&x.device(), x.dtype(), mixed_shape);
        linear_bwd_input(dout, &weights.o_proj, &mut dmixed)?;
        let dmixed = dmixed.reshape(q.shape())?;

        let mut dgated: Vec<Tensor> = self
            .branches
            .iter()
            .map(|branch| if branch.contributes { dmixed.clone() } else { Tensor::zeros_like(&dmixed) })
            .collect();
        let mut douts: Vec<Tensor> = dgated.iter().map(Tensor::zeros_like).collect();
        if let Some((alignment, scale)) = alignment {
            self.alignment_backward(alignment, scale, &mut dgated, &mut douts)?;
        }

        let mut dgates = Gates::zeros_like(&self.gates);
        let mut dqkv = AttentionGrads::zeros_like(q, k, v);
        for ((branch, dgated), dout) in self.branches.iter().zip(&dgated).zip(&mut douts) {
            let index = self.gates.index(branch.kind);
            let (gate, dgate) = (&self.gates.0[index].1, &mut dgates.0[index].1);
            gate_apply_bwd(dgated, &branch.output.out, gate, dout, dgate)?;
            branch.backward(dout, &self.qkv, context, &mut dqkv)?;
        }
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
