//! Rows of the embedding and their gradients; ids that occur once, often, and almost always.

use ssa_kernels::ops::embedding::{embedding_bwd, embedding_fwd, reference};
use ssa_kernels::{DType, Tensor};

use crate::{Context, Result};

/// Vocabulary, hidden size, tokens, and how many of a hundred tokens have id 5.
const SHAPES: [[usize; 4]; 6] = [
    [1, 1, 1, 0],
    [300, 64, 1, 0],
    [11, 63, 1000, 0],
    [500, 2048, 300, 40],
    [4000, 2200, 63, 0],
    [300, 17, 100_000, 95],
];

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for [vocab, hidden, tokens, hundredths] in SHAPES {
        context.case(format!("{vocab} ids of {hidden}, {tokens} tokens, {hundredths} % of one id"));
        let mut ids = context.random().below(vocab as u32, tokens);
        let draws = context.random().below(100, tokens);
        let frequent = ids.iter_mut().zip(draws).filter(|(_, draw)| (*draw as usize) < hundredths);
        frequent.for_each(|(id, _)| *id = 5);
        let (weight, weight_exact) = context.normal(&[vocab, hidden], 1.0)?;
        let (dout, dout_exact) = context.normal(&[1, tokens, hidden], 1.0)?;

        let out = embedding_fwd(&ids, &weight, [1, tokens])?;
        let exact = reference::forward(&ids, &weight_exact, hidden)?;
        context.compare("out", &out, &exact, &exact)?;

        let device = context.device();
        let backward = || -> Result<Tensor> {
            let mut dweight = Tensor::zeros_on(device, DType::F32, [vocab, hidden])?;
            for _ in 0..2 {
                embedding_bwd(&dout, &ids, &mut dweight)?;
            }
            Ok(dweight)
        };
        let exact = reference::backward(&dout_exact, &ids, vocab, hidden)?;
        let dweight = backward()?;
        context.compare_f32("dweight", &dweight, &crate::twice(&exact))?;
        context.compare_bits("dweight", &dweight, &backward()?)?;
    }
    Ok(())
}
