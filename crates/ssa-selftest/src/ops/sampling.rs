//! Drawn tokens against the definition, on the same logits.

use ssa_kernels::ops::sampling::{Draw, NoiseKey, Sampler, SamplingOptions, draw_tokens};

use crate::{Context, Result};

/// Vocabularies: within and beyond a chunk of the kernels, and that of SSA-1B.
const VOCABULARIES: [usize; 5] = [1, 31, 2049, 5000, 128_256];
const ROWS: usize = 12;

const OFF: SamplingOptions = SamplingOptions { temperature: 1.0, ..SamplingOptions::GREEDY };

/// Every filter alone and together, from none to all tokens kept.
const OPTIONS: [SamplingOptions; 14] = [
    SamplingOptions::GREEDY,
    SamplingOptions { repetition_penalty: 1.3, ..SamplingOptions::GREEDY },
    OFF,
    SamplingOptions { temperature: 0.3, repetition_penalty: 0.8, ..OFF },
    SamplingOptions { temperature: 100.0, ..OFF },
    SamplingOptions { top_k: 1, ..OFF },
    SamplingOptions { top_k: 50, ..OFF },
    SamplingOptions { top_k: 3000, temperature: 5.0, ..OFF },
    SamplingOptions { top_p: 0.95, ..OFF },
    SamplingOptions { top_p: 1e-3, ..OFF },
    SamplingOptions { top_p: 0.999, temperature: 20.0, ..OFF },
    SamplingOptions { min_p: 0.1, ..OFF },
    SamplingOptions { min_p: 0.02, top_p: 0.9, ..OFF },
    SamplingOptions {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.05,
        repetition_penalty: 1.2,
    },
];

/// Logits of a row.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Normal,
    /// Many equal ones.
    Steps,
    /// Most are negative infinity.
    Sparse,
}

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for vocabulary in VOCABULARIES {
        for kind in [Kind::Normal, Kind::Steps, Kind::Sparse] {
            check(context, vocabulary, kind)?;
        }
        damaged(context, vocabulary)?;
    }
    Ok(())
}

fn check(context: &mut Context<'_>, vocabulary: usize, kind: Kind) -> Result<()> {
    let logits: Vec<f32> = { context.random().normal(ROWS * vocabulary).into_iter().enumerate() }
        .map(|(index, x)| match kind {
            Kind::Normal => 4.0 * x,
            Kind::Steps => (2.0 * x).round() / 2.0,
            Kind::Sparse if (index % vocabulary).is_multiple_of(7) => x,
            Kind::Sparse => f32::NEG_INFINITY,
        })
        .collect();
    let ids: Vec<Vec<u32>> =
        (0..ROWS).map(|row| context.random().below(vocabulary as u32, 5 * row)).collect();
    for (number, options) in OPTIONS.iter().enumerate() {
        context.case(format!("V {vocabulary}, {kind:?} logits, settings {number}"));
        let sampler = |row: usize| {
            let noise = NoiseKey { seed: 7 << 40, request: row as u64 };
            Sampler::new(options.clone(), noise)
        };
        let samplers: Vec<Sampler> = (0..ROWS).filter_map(|row| sampler(row).ok()).collect();
        let rows: Vec<(Draw<'_>, &[u32])> = samplers
            .iter()
            .zip(&ids)
            .enumerate()
            .map(|(row, (sampler, ids))| {
                // Some rows have ids that are not drawn.
                let vocabulary = (vocabulary - row % 2 * (vocabulary / 3)).max(1);
                (Draw { sampler, vocabulary }, ids.as_slice())
            })
            .collect();
        let tensor = context.f32_tensor(logits.clone(), &[ROWS, vocabulary])?;
        let drawn = draw_tokens(&tensor, &rows)?;
        let expected = logits.chunks_exact(vocabulary).zip(&rows);
        let expected = expected.map(|(logits, (draw, ids))| draw.token(logits, ids));
        let differ = drawn.iter().zip(expected).filter(|(drawn, expected)| **drawn != *expected);
        context.check("tokens that differ", differ.count());
    }
    Ok(())
}

/// Logits that no token can be drawn from.
fn damaged(context: &mut Context<'_>, vocabulary: usize) -> Result<()> {
    context.case(format!("V {vocabulary}, damaged logits"));
    let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let mut logits = vec![f32::NEG_INFINITY; bad.len() * vocabulary];
    for (row, bad) in logits.chunks_exact_mut(vocabulary).zip(bad) {
        row[vocabulary / 2] = bad;
    }
    let tensor = context.f32_tensor(logits.clone(), &[bad.len(), vocabulary])?;
    let sampled = Sampler::new(OFF, NoiseKey::default());
    for sampler in [Ok(Sampler::GREEDY), sampled].iter().flatten() {
        let rows = vec![(Draw { sampler, vocabulary }, &[1, 2][..]); bad.len()];
        let expected = logits.chunks_exact(vocabulary).zip(&rows);
        let expected = expected.map(|(logits, (draw, ids))| draw.token(logits, ids));
        let drawn = draw_tokens(&tensor, &rows)?;
        let differ = drawn.iter().zip(expected).filter(|(drawn, expected)| **drawn != *expected);
        context.check("errors that differ", differ.count());
    }
    Ok(())
}
