//! Gates and alignment of the two streams in one pass.

use ssa_kernels::Tensor;
use ssa_kernels::ops::attention::AttentionMode;
use ssa_kernels::ops::attention::gated_pair::{
    GatedPair, GatedPairGrads, PairAlignment, gated_pair_bwd, gated_pair_fwd, reference,
};

use super::alignment::every_option;
use crate::{Context, Result, added_twice, round, twice};

/// Tokens, heads and head dimension; the last has more tokens than partial sums.
const SHAPES: [[usize; 3]; 5] = [[1, 1, 2], [63, 3, 20], [100, 32, 64], [33, 2, 128], [2500, 5, 8]];

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for shape in SHAPES {
        let inputs = Inputs::new(context, shape)?;
        for options in every_option() {
            for (gated, chosen) in [
                (true, AttentionMode::Full),
                (true, AttentionMode::Sparse),
                (false, AttentionMode::Full),
                (false, AttentionMode::Sparse),
            ] {
                let [tokens, heads, head_dim] = shape;
                let what = if gated { "gated" } else { "bare" };
                let (kind, direction) = (options.kind, options.direction);
                context.case(format!(
                    "{kind:?} {direction:?} {what} {chosen:?}, {tokens} x {heads} x {head_dim}"
                ));
                let valid = (chosen == AttentionMode::Sparse).then_some(&inputs.valid[..]);
                let alignment = PairAlignment { options: &options, gated, valid };
                inputs.check(context, &alignment, chosen)?;
            }
        }
    }
    Ok(())
}

/// Tensors and their exact values.
struct Inputs {
    full: (Tensor, Vec<f64>),
    sparse: (Tensor, Vec<f64>),
    dmixed: (Tensor, Vec<f64>),
    gate: (Tensor, Vec<f64>),
    valid: Vec<bool>,
}

impl Inputs {
    fn new(context: &mut Context<'_>, [tokens, heads, head_dim]: [usize; 3]) -> Result<Self> {
        let shape = [1, tokens, heads, head_dim];
        let gates = context.random().normal(tokens * heads);
        let exact = gates.iter().map(|&value| f64::from(value)).collect();
        Ok(Self {
            full: context.normal(&shape, 1.0)?,
            sparse: context.normal(&shape, 1.0)?,
            dmixed: context.normal(&shape, 1.0)?,
            gate: (context.f32_tensor(gates, &shape[..3])?, exact),
            valid: (0..tokens).map(|token| token % 3 != 1).collect(),
        })
    }

    fn check(
        &self,
        context: &mut Context<'_>,
        alignment: &PairAlignment<'_>,
        chosen: AttentionMode,
    ) -> Result<()> {
        const SCALE: f32 = 0.25;
        let pair =
            GatedPair { full: &self.full.0, sparse: &self.sparse.0, gate: &self.gate.0, chosen };
        let everywhere = vec![true; self.valid.len()];
        let exact = reference::Pair {
            full: &self.full.1,
            sparse: &self.sparse.1,
            gate: &self.gate.1,
            head_dim: self.full.0.last_dim(),
            chosen,
            gated: alignment.gated,
            valid: alignment.valid.unwrap_or(&everywhere),
            options: alignment.options,
        };
        let (mixed, sum) = gated_pair_fwd(&pair, alignment)?;
        let (emixed, esum) = reference::forward(&exact)?;
        context.compare("mixed", &mixed, &emixed, &round(&emixed))?;
        context.compare_number("sum", sum.value()?, esum, 1e-6);

        let backward = || -> Result<[Tensor; 3]> {
            let [mut dfull, mut dsparse] =
                [Tensor::zeros_like(&self.full.0)?, Tensor::zeros_like(&self.full.0)?];
            let mut dgate = Tensor::zeros_like(&self.gate.0)?;
            for _ in 0..2 {
                let grads =
                    GatedPairGrads { dfull: &mut dfull, dsparse: &mut dsparse, dgate: &mut dgate };
                gated_pair_bwd(&self.dmixed.0, &pair, alignment, SCALE, grads)?;
            }
            Ok([dfull, dsparse, dgate])
        };
        let [dfull, dsparse, dgate] = backward()?;
        let (edfull, edsparse, edgate) =
            reference::backward(&self.dmixed.1, &exact, f64::from(SCALE))?;
        context.compare("dfull", &dfull, &twice(&edfull), &added_twice(&edfull))?;
        context.compare("dsparse", &dsparse, &twice(&edsparse), &added_twice(&edsparse))?;
        context.compare_f32("dgate", &dgate, &twice(&edgate))?;
        let again = backward()?;
        for (what, first, second) in [
            ("dfull", &dfull, &again[0]),
            ("dsparse", &dsparse, &again[1]),
            ("dgate", &dgate, &again[2]),
        ] {
            context.compare_bits(what, first, second)?;
        }
        Ok(())
    }
}
