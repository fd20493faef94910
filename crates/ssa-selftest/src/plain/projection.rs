//! Queries, keys and values of a layer, forward and backward, after `projection.rs` of the model's
//! crate.

use ssa_kernels::Tensor;
use ssa_kernels::ops::{bias, rope};
use ssa_model::{LayerParameters, ModelError};

use super::branch::Shared;
use super::ops::add_to_weight;
use crate::Result;

/// Queries, keys and values with what their backward needs.
pub(super) struct Projection {
    pub(super) qkv: [Vec<f64>; 3],
    /// q and k before the norm of their heads; empty without one.
    before_norm: [Vec<f64>; 2],
}

impl Shared<'_> {
    /// Projects the normed input of a layer.
    pub(super) fn project(
        &self,
        x: &[f64],
        weights: &LayerParameters,
    ) -> Result<Projection, ModelError> {
        let (q, q_before) =
            self.heads(x, &weights.q_proj, weights.q_bias.as_ref(), weights.q_norm.as_ref())?;
        let (k, k_before) =
            self.heads(x, &weights.k_proj, weights.k_bias.as_ref(), weights.k_norm.as_ref())?;
        let (v, _) = self.heads(x, &weights.v_proj, weights.v_bias.as_ref(), None)?;
        let [q, k] = [q, k].map(|heads| self.rope(&heads, rope::reference::forward));
        let (q, k) = (q?, k?);
        Ok(Projection { qkv: [q, k, v], before_norm: [q_before, k_before] })
    }

    /// Heads, and what they are before their norm.
    fn heads(
        &self,
        x: &[f64],
        weight: &Tensor,
        bias: Option<&Tensor>,
        norm: Option<&Tensor>,
    ) -> Result<(Vec<f64>, Vec<f64>), ModelError> {
        let rounding = self.rounding;
        let mut heads = rounding.linear(x, weight)?;
        if let Some(bias) = bias {
            let bias = rounding.weight(bias.as_slice()?);
            heads = rounding.matrix(bias::reference::forward(&heads, &bias)?);
        }
        match norm {
            None => Ok((heads, Vec::new())),
            Some(weight) => {
                Ok((rounding.rms_norm(&heads, weight, self.config.rms_norm_eps)?, heads))
            }
        }
    }

    /// Adds to the weights' gradients and to `dx`, the gradient of the normed input `x`.
    pub(super) fn project_backward(
        &self,
        dqkv: [Vec<f64>; 3],
        saved: &Projection,
        x: &[f64],
        weights: &LayerParameters,
        dx: &mut Vec<f64>,
        grads: &mut LayerParameters,
    ) -> Result<(), ModelError> {
        let (rounding, eps) = (self.rounding, self.config.rms_norm_eps);
        let [dq, dk, dv] = dqkv;
        let [dq, dk] = [dq, dk].map(|heads| self.rope(&heads, rope::reference::backward));
        let (mut dq, mut dk) = (dq?, dk?);
        let [q, k] = &saved.before_norm;
        for (dheads, heads, weight, dweight) in [
            (&mut dq, q, &weights.q_norm, &mut grads.q_norm),
            (&mut dk, k, &weights.k_norm, &mut grads.k_norm),
        ] {
            if let (Some(weight), Some(dweight)) = (weight, dweight) {
                *dheads = rounding.rms_norm_backward(dheads, heads, (weight, eps), dweight)?;
            }
        }
        for (dheads, weight, dweight, dbias) in [
            (dq, &weights.q_proj, &mut grads.q_proj, &mut grads.q_bias),
            (dk, &weights.k_proj, &mut grads.k_proj, &mut grads.k_bias),
            (dv, &weights.v_proj, &mut grads.v_proj, &mut grads.v_bias),
        ] {
            if let Some(dbias) = dbias {
                let width = dbias.len();
                add_to_weight(dbias, &bias::reference::backward(&dheads, width)?)?;
            }
            rounding.add(dx, &rounding.linear_backward(&dheads, x, weight, dweight)?);
        }
        Ok(())
    }

    fn rope(
        &self,
        x: &[f64],
        by: impl Fn(&[f64], &[usize], usize, &[f64]) -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        let config = self.config;
        let positions: Vec<usize> = self.documents.positions().collect();
        let heads = x.len() / positions.len() / config.head_dim;
        let frequencies: Vec<f64> =
            config.rope_scaling.inverse_frequencies(config.head_dim, config.rope_theta).collect();
        let factor = config.rope_scaling.attention_factor();
        let rotated = by(x, &positions, heads, &frequencies)?;
        Ok(self.rounding.matrix(rotated.iter().map(|x| factor * x).collect()))
    }
}
