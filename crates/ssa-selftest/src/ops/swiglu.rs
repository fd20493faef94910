//! The gated activation and its gradients, with and without the activation computed again.

use ssa_kernels::Tensor;
use ssa_kernels::ops::swiglu::{reference, swiglu_bwd, swiglu_bwd_with_out, swiglu_fwd};

use crate::{Context, Result, added_twice, round, twice};

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for len in [1, 7, 63, 8192, 100_003] {
        context.case(format!("{len} elements"));
        let mut gates = context.random().normal(len);
        // The sigmoid neither overflows nor loses its tail.
        let extremes = [-1e4, -100.0, 100.0, 1e4, 0.0, -0.0];
        gates.iter_mut().skip(1).zip(extremes).for_each(|(gate, extreme)| *gate = extreme);
        let (gate, gate_exact) = context.tensor(gates, &[len])?;
        let (up, up_exact) = context.normal(&[len], 1.0)?;
        let (dout, dout_exact) = context.normal(&[len], 1.0)?;

        let out = swiglu_fwd(&gate, &up)?;
        let exact = reference::forward(&gate_exact, &up_exact)?;
        context.compare("out", &out, &exact, &round(&exact))?;
        context.compare_bits("out", &out, &swiglu_fwd(&gate, &up)?)?;

        let backward = || -> Result<[Tensor; 2]> {
            let [mut dgate, mut dup] = [Tensor::zeros_like(&gate)?, Tensor::zeros_like(&gate)?];
            for _ in 0..2 {
                swiglu_bwd(&dout, &gate, &up, &mut dgate, &mut dup)?;
            }
            Ok([dgate, dup])
        };
        let (edgate, edup) = reference::backward(&dout_exact, &gate_exact, &up_exact)?;
        let [dgate, dup] = backward()?;
        context.compare("dgate", &dgate, &twice(&edgate), &added_twice(&edgate))?;
        context.compare("dup", &dup, &twice(&edup), &added_twice(&edup))?;
        let again = backward()?;
        context.compare_bits("dgate", &dgate, &again[0])?;
        context.compare_bits("dup", &dup, &again[1])?;

        let all = swiglu_bwd_with_out(dout.try_clone()?, &gate, &up)?;
        context.compare("dgate with out", &all.dgate, &edgate, &round(&edgate))?;
        context.compare("dup with out", &all.dup, &edup, &round(&edup))?;
        context.compare_bits("out again", &all.out, &out)?;
        // `dout` was a copy that shares memory with this one.
        context.compare("dout", &dout, &dout_exact, &dout_exact)?;
    }
    Ok(())
}
