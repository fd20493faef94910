//! A layer, forward and backward, after `layer.rs`, `attention.rs` and `mlp.rs` of the model's
//! crate.

use ssa_kernels::ops::attention::alignment::reference as alignment;
use ssa_kernels::ops::attention::gated_pair::PairAlignment;
use ssa_kernels::ops::attention::selection::HostBlockIndices;
use ssa_kernels::ops::gate::{GateBranch, reference as gate};
use ssa_kernels::ops::swiglu;
use ssa_model::{LayerParameters, ModelError};

use super::attention::Visible;
use super::branch::{Branch, Importance, Kind, Shared};
use super::ops::add_to_weight;
use super::projection::Projection;
use super::{Rounding, gate_backward};
use crate::Result;

/// What the backward needs.
pub(super) struct Saved {
    /// Empty without sparse attention.
    pub(super) importance: Importance,
    x: Vec<f64>,
    norm: Vec<f64>,
    projection: Projection,
    branches: Vec<Branch>,
    mixed: Vec<f64>,
    middle: Vec<f64>,
    mlp_norm: Vec<f64>,
    gate: Vec<f64>,
    up: Vec<f64>,
    hidden: Vec<f64>,
}

impl Saved {
    /// What the alignment loss compares, if the layer computed both streams.
    fn pair(&self, gated: bool) -> Option<[&[f64]; 2]> {
        match self.branches.as_slice() {
            [full, sparse] if gated => Some([&full.gated, &sparse.gated]),
            [full, sparse] => Some([&full.out, &sparse.out]),
            _ => None,
        }
    }

    /// The alignment sum.
    pub(super) fn alignment(&self, by: &PairAlignment<'_>, valid: &[bool]) -> Result<f64> {
        let sum = |[full, sparse]: [&[f64]; 2]| {
            alignment::forward(full, sparse, valid, full.len() / valid.len(), by.options)
        };
        self.pair(by.gated).map_or(Ok(0.0), sum)
    }
}

impl Shared<'_> {
    fn eps(&self) -> f64 {
        self.config.rms_norm_eps
    }

    /// The layer's output; `plan` lists attentions and whether their gated output feeds the next
    /// layer. Without a `selection` the layer makes its own.
    pub(super) fn forward(
        &self,
        x: Vec<f64>,
        weights: &LayerParameters,
        plan: &[(Kind, bool)],
        selection: Option<&HostBlockIndices>,
    ) -> Result<(Vec<f64>, Saved), ModelError> {
        let rounding = self.rounding;
        let norm = rounding.rms_norm(&x, &weights.input_layernorm, self.eps())?;
        let projection = self.project(&norm, weights)?;
        let qkv = &projection.qkv;
        let sparse = plan.iter().any(|(kind, _)| *kind == Kind::Sparse);
        let importance = if sparse { self.importance(qkv)? } else { Vec::new() };
        let mut branches = Vec::new();
        for &(kind, contributes) in plan {
            let visible = match (kind, selection) {
                (Kind::Full, _) => Visible::full(self.documents),
                (Kind::Sparse, Some(selection)) => Visible::sparse(selection.clone()),
                (Kind::Sparse, None) => Visible::sparse(self.select(&importance)?),
                (Kind::Compression, _) => {
                    Visible::compression(self.documents_of(kind), self.block_size())
                }
                (Kind::Window, _) => {
                    Visible::window(self.documents_of(kind), self.options.window_size)
                }
            };
            branches.push(self.branch((kind, contributes), visible, &norm, qkv, weights)?);
        }
        let mut contributing = branches.iter().filter(|branch| branch.contributes);
        let mut mixed = contributing.next().map_or(Vec::new(), |branch| branch.gated.clone());
        contributing.for_each(|branch| rounding.add(&mut mixed, &branch.gated));
        let mut middle = rounding.linear(&mixed, &weights.o_proj)?;
        rounding.add(&mut middle, &x);

        let mlp_norm = rounding.rms_norm(&middle, &weights.post_attention_layernorm, self.eps())?;
        let gate = rounding.linear(&mlp_norm, &weights.gate_proj)?;
        let up = rounding.linear(&mlp_norm, &weights.up_proj)?;
        let hidden = rounding.matrix(swiglu::reference::forward(&gate, &up)?);
        let mut out = rounding.linear(&hidden, &weights.down_proj)?;
        rounding.add(&mut out, &middle);
        Ok((
            out,
            Saved {
                importance,
                x,
                norm,
                projection,
                branches,
                mixed,
                middle,
                mlp_norm,
                gate,
                up,
                hidden,
            },
        ))
    }

    /// Turns `dx` from the gradient of the output into that of the input and adds to the weights'
    /// gradients. `alignment` comes with the factor of its sum in the loss.
    pub(super) fn backward(
        &self,
        dx: &mut Vec<f64>,
        saved: &Saved,
        weights: &LayerParameters,
        alignment: (&PairAlignment<'_>, &[bool], f64),
        grads: &mut LayerParameters,
    ) -> Result<(), ModelError> {
        let rounding = self.rounding;
        let dhidden = rounding.linear_backward(
            dx,
            &saved.hidden,
            &weights.down_proj,
            &mut grads.down_proj,
        )?;
        let (dgate, dup) = swiglu::reference::backward(&dhidden, &saved.gate, &saved.up)?;
        let [dgate, dup] = [dgate, dup].map(|values| rounding.matrix(values));
        let x = &saved.mlp_norm;
        let mut dnorm =
            rounding.linear_backward(&dgate, x, &weights.gate_proj, &mut grads.gate_proj)?;
        let through_up = rounding.linear_backward(&dup, x, &weights.up_proj, &mut grads.up_proj)?;
        rounding.add(&mut dnorm, &through_up);
        let weight = (&weights.post_attention_layernorm, self.eps());
        let dweight = &mut grads.post_attention_layernorm;
        rounding.add(dx, &rounding.rms_norm_backward(&dnorm, &saved.middle, weight, dweight)?);

        let dmixed =
            rounding.linear_backward(dx, &saved.mixed, &weights.o_proj, &mut grads.o_proj)?;
        let dnorm = self.attention_backward(&dmixed, saved, weights, alignment, grads)?;
        let (weight, dweight) =
            ((&weights.input_layernorm, self.eps()), &mut grads.input_layernorm);
        rounding.add(dx, &rounding.rms_norm_backward(&dnorm, &saved.x, weight, dweight)?);
        Ok(())
    }

    /// The gradient of the normed input.
    fn attention_backward(
        &self,
        dmixed: &[f64],
        saved: &Saved,
        weights: &LayerParameters,
        alignment: (&PairAlignment<'_>, &[bool], f64),
        grads: &mut LayerParameters,
    ) -> Result<Vec<f64>, ModelError> {
        let (rounding, hidden) = (self.rounding, self.config.hidden_size);
        let qkv = &saved.projection.qkv;
        let mut dqkv = qkv.each_ref().map(|values| vec![0.0; values.len()]);
        let mut dgates: Vec<(GateBranch, &[f64], Vec<f64>)> = Vec::new();
        for (branch, pull) in saved.branches.iter().zip(pulls(saved, alignment, rounding)?) {
            let (dout, dgate) =
                self.gate_backward(branch, dmixed, pull.as_deref(), alignment.0.gated)?;
            match dgates.iter_mut().find(|(of, ..)| *of == branch.kind.gate()) {
                Some((.., sum)) => rounding.add(sum, &dgate),
                None => dgates.push((branch.kind.gate(), &branch.gate, dgate)),
            }
            let added = self.branch_backward(branch, &dout, qkv)?;
            dqkv.iter_mut().zip(&added).for_each(|(sum, added)| rounding.add(sum, added));
        }

        let mut dx = vec![0.0; saved.norm.len()];
        if let (Some(g_proj), Some(dg_proj)) = (&weights.g_proj, &mut grads.g_proj) {
            let g_proj = rounding.weight(g_proj.as_slice()?);
            for (branch, gate, dgate) in dgates {
                let (through_gate, dweight) =
                    gate_backward(&dgate, gate, &saved.norm, (&g_proj, branch), hidden, rounding)?;
                add_to_weight(dg_proj, &dweight)?;
                rounding.add(&mut dx, &rounding.matrix(through_gate));
            }
        }
        self.project_backward(dqkv, &saved.projection, &saved.norm, weights, &mut dx, grads)?;
        Ok(dx)
    }

    /// Gradients `(dout, dgate)` of a branch; `pull` is that of the alignment loss, on the gated
    /// output or the bare one.
    fn gate_backward(
        &self,
        branch: &Branch,
        dmixed: &[f64],
        pull: Option<&[f64]>,
        gated: bool,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let rounding = self.rounding;
        let mut dgated = if branch.contributes { dmixed.to_vec() } else { vec![0.0; dmixed.len()] };
        if let (Some(pull), true) = (pull, gated) {
            rounding.add(&mut dgated, pull);
        }
        let (dout, dgate) =
            gate::apply_backward(&dgated, &branch.out, &branch.gate, self.config.head_dim)?;
        let mut dout = rounding.matrix(dout);
        if let (Some(pull), false) = (pull, gated) {
            rounding.add(&mut dout, pull);
        }
        Ok((dout, rounding.matrix(dgate)))
    }
}

/// The gradient of the alignment loss for each branch.
fn pulls(
    saved: &Saved,
    (by, valid, scale): (&PairAlignment<'_>, &[bool], f64),
    rounding: Rounding,
) -> Result<Vec<Option<Vec<f64>>>> {
    let Some([full, sparse]) = saved.pair(by.gated) else {
        return Ok(saved.branches.iter().map(|_| None).collect());
    };
    let (pull_full, pull_sparse) =
        alignment::backward(full, sparse, valid, full.len() / valid.len(), by.options, scale)?;
    Ok([pull_full, pull_sparse].map(|pull| Some(rounding.matrix(pull))).into())
}
