//! Linear map and cross-entropy: losses, sums, both gradients, divergences of predictions; rows
//! that are not aligned; several chunks.

use ssa_kernels::ops::cross_entropy::{
    IGNORE_INDEX, compare_predictions, linear_cross_entropy_fwd, linear_cross_entropy_fwd_bwd,
    linear_cross_entropy_losses, reference,
};
use ssa_kernels::{DType, Tensor};

use crate::plain::{Rounding, cross_entropy};
use crate::{Context, Result, round};

/// Tokens, vocabulary and hidden size.
const SHAPES: [[usize; 3]; 6] =
    [[1, 1, 8], [63, 2, 17], [100, 257, 64], [33, 5000, 96], [17, 50_257, 16], [9, 128_256, 32]];

const SCALE: f32 = 0.01;

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for [tokens, vocab, hidden] in SHAPES {
        for z_loss in [0.0, 1e-2] {
            context.case(format!("{tokens} tokens, {vocab} ids, {hidden} wide, z-loss {z_loss}"));
            one_chunk(context, [tokens, vocab, hidden], z_loss)?;
        }
        predictions(context, [tokens, vocab, hidden])?;
    }
    several_chunks(context)
}

/// Every seventh label is ignored.
fn random_labels(context: &mut Context<'_>, vocab: usize, tokens: usize) -> Vec<i32> {
    let labels = context.random().below(vocab as u32, tokens).into_iter().enumerate();
    labels.map(|(n, label)| if n % 7 == 3 { IGNORE_INDEX } else { label as i32 }).collect()
}

/// What the op adds to gradients of zero, and its sums.
fn gradients(
    x: &Tensor,
    weight: &Tensor,
    labels: &[i32],
    z_loss: f32,
) -> Result<([Tensor; 2], [f64; 2])> {
    let mut dx = Tensor::zeros_like(x)?;
    let mut dweight = Tensor::zeros_on(&x.device(), DType::F32, weight.shape())?;
    let loss =
        linear_cross_entropy_fwd_bwd(x, weight, labels, SCALE, z_loss, &mut dx, &mut dweight)?;
    Ok(([dx, dweight], [loss.loss_sum.value()?, loss.lse_square_sum.value()?]))
}

fn one_chunk(
    context: &mut Context<'_>,
    [tokens, vocab, hidden]: [usize; 3],
    z_loss: f32,
) -> Result<()> {
    let (x, x_exact) = context.normal(&[1, tokens, hidden], 1.0)?;
    let (weight, weight_exact) =
        context.normal(&[vocab, hidden], 2.0 * (hidden as f32).powf(-0.5))?;
    let labels = random_labels(context, vocab, tokens);
    let losses = reference::losses(&x_exact, &weight_exact, &labels, hidden)?;
    let squares = reference::lse_squares(&x_exact, &weight_exact, &labels, hidden)?;
    let [loss_sum, square_sum] = [losses.iter().sum::<f64>(), squares.iter().sum()];

    let each = linear_cross_entropy_losses(&x, &weight, &labels)?;
    context.compare_within("losses", &each, &losses, 2e-5);
    let forward = linear_cross_entropy_fwd(&x, &weight, &labels)?;
    let [forward_loss, forward_square] =
        [forward.loss_sum.value()?, forward.lse_square_sum.value()?];
    context.outcome("loss sum", (forward_loss - loss_sum).abs(), 1e-5 * (1.0 + loss_sum));
    context.outcome(
        "lse square sum",
        (forward_square - square_sum).abs(),
        1e-5 * (1.0 + square_sum),
    );

    let ([dx, dweight], [training_loss, _]) = gradients(&x, &weight, &labels, z_loss)?;
    let plain = cross_entropy(
        &x_exact,
        &weight_exact,
        &labels,
        [SCALE, z_loss].map(f64::from),
        Rounding::BF16,
    )?;
    let scaled =
        |values: Vec<f64>| values.iter().map(|value| f64::from(SCALE) * value).collect::<Vec<_>>();
    let (edx, edweight) =
        reference::backward(&x_exact, &weight_exact, &labels, hidden, f64::from(z_loss))?;
    context.compare("dx", &dx, &scaled(edx), &round(&plain.dx))?;
    context.compare("dweight", &dweight, &scaled(edweight), &round(&plain.dweight))?;
    let plain_error: f64 = plain.losses.iter().zip(&losses).map(|(a, b)| (a - b).abs()).sum();
    let allowed = 2.0 * plain_error + 1e-5 * (1.0 + loss_sum);
    context.outcome("loss sum in training", (training_loss - loss_sum).abs(), allowed);
    let (again, _) = gradients(&x, &weight, &labels, z_loss)?;
    context.compare_bits("dx", &dx, &again[0])?;
    context.compare_bits("dweight", &dweight, &again[1])
}

/// Losses of two predictions and their divergence; one from itself.
fn predictions(context: &mut Context<'_>, [tokens, vocab, hidden]: [usize; 3]) -> Result<()> {
    context.case(format!("{tokens} tokens, {vocab} ids, {hidden} wide, predictions"));
    let (p, p_exact) = context.normal(&[1, tokens, hidden], 1.0)?;
    let (q, q_exact) = context.normal(&[1, tokens, hidden], 1.0)?;
    let (weight, weight_exact) =
        context.normal(&[vocab, hidden], 2.0 * (hidden as f32).powf(-0.5))?;
    let labels = random_labels(context, vocab, tokens);
    let scores = compare_predictions(&[&p, &q, &p], &weight, &labels)?;
    for (score, exact) in scores.iter().zip([&p_exact, &q_exact, &p_exact]) {
        let losses: f64 = reference::losses(exact, &weight_exact, &labels, hidden)?.iter().sum();
        let error = (score.loss_sum.value()? - losses).abs();
        context.outcome("loss sum", error, 1e-5 * (1.0 + losses));
    }
    let divergences: f64 =
        reference::divergences(&p_exact, &q_exact, &weight_exact, &labels, hidden)?.iter().sum();
    let error = (scores[1].divergence_sum.value()? - divergences).abs();
    context.outcome("divergence sum", error, 1e-5 * (1.0 + divergences));
    let own = [&scores[0], &scores[2]].map(|score| score.divergence_sum.value());
    for divergence in own {
        context.outcome("divergence from itself", divergence?.abs(), 0.0);
    }
    Ok(())
}

/// A large vocabulary and more tokens than a chunk: the same as the two parts of the tokens one
/// after the other.
fn several_chunks(context: &mut Context<'_>) -> Result<()> {
    let [first, second, vocab, hidden] = [4096, 37, 128_256, 8];
    context.case(format!("{} tokens, {vocab} ids, in chunks", first + second));
    let values = context.random().normal((first + second) * hidden);
    let (head, tail) = values.split_at(first * hidden);
    let [head, tail] = [(head, first), (tail, second)]
        .map(|(values, tokens)| context.tensor(values.to_vec(), &[1, tokens, hidden]));
    let (head, tail) = (head?.0, tail?.0);
    let (x, _) = context.tensor(values, &[1, first + second, hidden])?;
    let (weight, _) = context.normal(&[vocab, hidden], 0.5)?;
    let labels = random_labels(context, vocab, first + second);

    let losses = linear_cross_entropy_losses(&x, &weight, &labels)?;
    let parts = [
        linear_cross_entropy_losses(&head, &weight, &labels[..first])?,
        linear_cross_entropy_losses(&tail, &weight, &labels[first..])?,
    ];
    let parts: Vec<f64> = parts.concat().into_iter().map(f64::from).collect();
    context.compare_within("losses", &losses, &parts, 2e-5);
    let compared = compare_predictions(&[&x], &weight, &labels)?[0].loss_sum.value()?;
    let sum = losses.iter().map(|&loss| f64::from(loss)).sum();
    context.compare_number("loss sum of a prediction", compared, sum, 1e-6);

    let to_f64 = |tensor: &Tensor| -> Result<Vec<f64>> {
        Ok(tensor.to_vec()?.into_iter().map(f64::from).collect())
    };
    let ([dx, dweight], [loss, _]) = gradients(&x, &weight, &labels, 0.0)?;
    let ([dhead, dweight_head], [loss_head, _]) = gradients(&head, &weight, &labels[..first], 0.0)?;
    let ([dtail, mut dweight_both], [loss_tail, _]) =
        gradients(&tail, &weight, &labels[first..], 0.0)?;
    dweight_both.add_assign(&dweight_head)?;
    context.compare_number("loss sum", loss, loss_head + loss_tail, 1e-6);
    let dx_parts = [to_f64(&dhead)?, to_f64(&dtail)?].concat();
    context.compare("dx", &dx, &dx_parts, &dx_parts)?;
    let both = to_f64(&dweight_both)?;
    context.compare("dweight", &dweight, &both, &both)
}
