//! Ops and whole steps by a plain computation in `bf16`: one that keeps every matrix in `bf16`.
//!
//! All of it is computed in `f64` by the references of the ops, and [`Rounding`] says what becomes
//! of each result. Without rounding the same code is the definition of a step.

pub(crate) mod attention;
mod branch;
mod layer;
mod ops;
mod projection;
mod step;

pub(crate) use branch::Importance;
pub(crate) use ops::{cross_entropy, gate_backward};
pub(crate) use step::{TrainStep, logits};

/// How a computation keeps its matrices. Sums within an op, statistics of a softmax and gradients
/// of weights are never rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rounding {
    /// As they are.
    None,
    /// Rounded to the nearest multiple of `unit` by a `bf16`. Another unit is another computation
    /// as good as the first: its numbers are as dense, only not the same.
    Bf16 { unit: f64 },
}

impl Rounding {
    pub(crate) const BF16: Self = Self::Bf16 { unit: 1.0 };

    fn number(self, value: f64) -> f64 {
        match self {
            Self::None => value,
            Self::Bf16 { unit } => unit * bf16(value / unit),
        }
    }

    fn matrix(self, mut values: Vec<f64>) -> Vec<f64> {
        values.iter_mut().for_each(|value| *value = self.number(*value));
        values
    }

    /// The values of a weight, which every computation reads as `bf16`.
    fn weight(self, weight: &[f32]) -> Vec<f64> {
        let value = |&weight: &f32| match self {
            Self::None => f64::from(weight),
            Self::Bf16 { .. } => bf16(f64::from(weight)),
        };
        weight.iter().map(value).collect()
    }

    /// The rounding of another computation, in units larger by the factor `factor`.
    fn in_other_units(self, factor: f64) -> Self {
        match self {
            Self::None => Self::None,
            Self::Bf16 { unit } => Self::Bf16 { unit: factor * unit },
        }
    }
}

/// The nearest `bf16`.
pub fn bf16(value: f64) -> f64 {
    half::bf16::from_f64(value).to_f64()
}

/// Twice every element: what a gradient is that was added twice.
pub fn twice(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&value| 2.0 * value).collect()
}

/// The same in plain `bf16`: a gradient that is added to is rounded twice.
pub fn added_twice(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&value| bf16(2.0 * bf16(value))).collect()
}

/// The nearest `bf16` of every element.
pub fn round(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&value| bf16(value)).collect()
}
