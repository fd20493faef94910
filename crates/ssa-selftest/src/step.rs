//! What is allowed of a step: twice the error of plain computations in `bf16`.
//!
//! A step on a device is compared with the same step in `f64`, and so is a step that rounds every
//! matrix of activations and of their gradients to `bf16` after each op ([`TrainStep::plain`]):
//! that one's error takes in how far a model magnifies a rounding.
//!
//! Which blocks are selected jumps where two are almost equally important, and a single block can
//! change a gradient more than all roundings together. Whether a tie tips over is luck, so that no
//! small number of plain computations could say what to allow. All of them attend to the blocks
//! that the device has selected, and the selections are checked by themselves.
//!
//! How roundings add up is a matter of luck too, most of all in a loss, a single number. So plain
//! steps are taken in [`UNITS`]: their roundings are as large, but others. The largest of their
//! errors counts.

use rayon::prelude::*;
use ssa_kernels::ops::attention::selection::HostBlockIndices;
use ssa_model::{Losses, Model, ModelError, Parameters};

use crate::plain::{Rounding, TrainStep};
use crate::{Context, selection};

/// Thirds of a factor of two, after which the numbers of a `bf16` repeat.
const UNITS: [f64; 3] = [1.0, 1.259_921_049_894_873_2, 1.587_401_051_968_199_4];

/// One of the losses of a step.
type Loss = fn(&Losses) -> f64;

const LOSSES: [(&str, Loss); 3] = [
    ("cross-entropy", |losses| losses.cross_entropy),
    ("z-loss", |losses| losses.z_loss),
    ("alignment", |losses| losses.alignment),
];

/// Checks losses, gradients and selections of a step of a model on a device and returns the former
/// two; `exact` has the weights that the step is defined by, on the CPU.
pub(crate) fn check_step(
    context: &mut Context<'_>,
    step: &TrainStep,
    model: &Model,
    exact: &Model,
) -> Result<(Losses, Parameters), ModelError> {
    let (losses, grads) = step.run(model)?;
    let selections = selection::of_device(model, step.batch.input(), &step.options())?;
    compare(context, step, exact, (&losses, &grads), &selections)?;
    Ok((losses, grads))
}

/// Compares the results of a step, and the blocks it selected.
pub(crate) fn compare(
    context: &mut Context<'_>,
    step: &TrainStep,
    exact: &Model,
    (losses, grads): (&Losses, &Parameters),
    selections: &[HostBlockIndices],
) -> Result<(), ModelError> {
    let plain = plain(|rounding| step.plain(exact, rounding, Some(selections)))?;
    let exact = step.plain(exact, Rounding::None, Some(selections))?;
    for (what, loss) in LOSSES {
        let expected = loss(&exact.losses);
        let errors = plain.iter().map(|plain| (loss(&plain.losses) - expected).abs());
        // A single number of which plain computations may happen to hit every digit: the rounding
        // of the result itself, half a unit in the last place of a `bf16`, comes on top.
        let allowed = allowed(errors) + expected.abs() * f64::from(half::bf16::EPSILON) / 4.0;
        context.outcome(what, (loss(losses) - expected).abs(), allowed);
    }
    let plain_grads: Vec<_> = plain.iter().map(|plain| plain.grads.named()).collect();
    for (index, ((name, grad), (_, exact))) in
        grads.named().into_iter().zip(exact.grads.named()).enumerate()
    {
        let exact = exact.as_slice()?;
        let errors =
            plain_grads.iter().map(|named| Ok(relative(named[index].1.as_slice()?, exact)));
        let errors = errors.collect::<Result<Vec<_>, ModelError>>()?;
        let error = relative(&grad.to_vec()?, exact);
        context.outcome(&format!("d {name}"), error, allowed(errors.into_iter()));
    }
    let plain: Vec<_> = plain.into_iter().map(|plain| plain.importance).collect();
    selection::check(context, selections, &exact.importance, &plain, &step.options().selection);
    Ok(())
}

/// The results of plain computations of the same thing.
pub(crate) fn plain<T: Send>(
    compute: impl Fn(Rounding) -> Result<T, ModelError> + Sync,
) -> Result<Vec<T>, ModelError> {
    UNITS.into_par_iter().map(|unit| compute(Rounding::Bf16 { unit })).collect()
}

/// Twice the largest error of the plain computations.
pub(crate) fn allowed(plain_errors: impl Iterator<Item = f64>) -> f64 {
    2.0 * plain_errors.fold(0.0, f64::max)
}

/// The norm of the difference, in norms of `exact`.
pub(crate) fn relative(values: &[f32], exact: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f32>| {
        values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
    };
    let difference = norm(&mut values.iter().zip(exact).map(|(value, exact)| value - exact));
    difference / norm(&mut exact.iter().copied()).max(f64::MIN_POSITIVE)
}
