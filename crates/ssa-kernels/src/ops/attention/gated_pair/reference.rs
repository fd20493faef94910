//! `f64` definition of the pair: gates and alignment one after the other.

use crate::contract::{Args, D, HQ, N};
use crate::ops::attention::AttentionMode;
use crate::ops::attention::alignment::{AlignmentOptions, reference as alignment};
use crate::ops::gate::reference as gate;
use crate::{KernelError, Result};

/// A pair and what its alignment loss compares.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Output of full attention.
    pub full: &'a [f64],
    /// Output of sparse attention.
    pub sparse: &'a [f64],
    /// The gate of both, one number for `head_dim` elements.
    pub gate: &'a [f64],
    /// Elements of a head.
    pub head_dim: usize,
    /// The one whose gated output feeds the next layer.
    pub chosen: AttentionMode,
    /// Compare gated outputs.
    pub gated: bool,
    /// Which tokens count.
    pub valid: &'a [bool],
    /// Distance and direction.
    pub options: &'a AlignmentOptions,
}

impl Pair<'_> {
    fn gated_outputs(&self) -> Result<[Vec<f64>; 2]> {
        let gated = |out| gate::apply_forward(out, self.gate, self.head_dim);
        Ok([gated(self.full)?, gated(self.sparse)?])
    }

    fn args(&self, op: &'static str) -> Args<'_> {
        Args::new(op)
            .size("head_dim", D, self.head_dim)
            .entries("valid", self.valid.len(), "tokens", [N])
            .numbers("gate", self.gate, [N, HQ])
            .numbers("full", self.full, [N, HQ, D])
            .numbers("sparse", self.sparse, [N, HQ, D])
    }
}

/// The elements of a token.
fn width(args: Args<'_>) -> Result<usize> {
    let [heads, head_dim] = args.check()?.sizes([HQ, D])?;
    Ok(heads * head_dim)
}

/// The chosen output after the gate, and the alignment sum.
///
/// # Errors
/// [`KernelError::Argument`] for sizes that do not fit.
pub fn forward(pair: &Pair<'_>) -> Result<(Vec<f64>, f64)> {
    let width = width(pair.args("gated_pair::reference::forward"))?;
    let [full, sparse] = pair.gated_outputs()?;
    let (a, b) = if pair.gated { (&full[..], &sparse[..]) } else { (pair.full, pair.sparse) };
    let sum = alignment::forward(a, b, pair.valid, width, pair.options)?;
    Ok((if pair.chosen == AttentionMode::Full { full } else { sparse }, sum))
}

/// Gradients `(dfull, dsparse, dgate)` for an upstream gradient `dmixed` and the factor of the
/// alignment sum.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    dmixed: &[f64],
    pair: &Pair<'_>,
    scale: f64,
) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    let args = pair.args("gated_pair::reference::backward");
    let width = width(args.numbers("dmixed", dmixed, [N, HQ, D]))?;
    let [gated_full, gated_sparse] = pair.gated_outputs()?;
    let (a, b) =
        if pair.gated { (&gated_full[..], &gated_sparse[..]) } else { (pair.full, pair.sparse) };
    let (pull_full, pull_sparse) =
        alignment::backward(a, b, pair.valid, width, pair.options, scale)?;
    let sides = [
        (pair.full, pull_full, AttentionMode::Full),
        (pair.sparse, pull_sparse, AttentionMode::Sparse),
    ];
    let mut dgate = vec![0.0; pair.gate.len()];
    let [dfull, dsparse] = sides.map(|(out, pull, stream)| {
        let through = |i: usize| if pair.chosen == stream { dmixed[i] } else { 0.0 };
        let dgated: Vec<f64> =
            (0..out.len()).map(|i| through(i) + if pair.gated { pull[i] } else { 0.0 }).collect();
        let (mut dout, own_dgate) = gate::apply_backward(&dgated, out, pair.gate, pair.head_dim)?;
        dgate.iter_mut().zip(own_dgate).for_each(|(sum, own)| *sum += own);
        if !pair.gated {
            dout.iter_mut().zip(pull).for_each(|(dout, pull)| *dout += pull);
        }
        Ok::<_, KernelError>(dout)
    });
    Ok((dfull?, dsparse?, dgate))
}
