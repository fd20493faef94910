//! Axes of charts: positions of numbers, and ticks.

use crate::number::group_digits;

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Linear.
    Linear,
    /// Logarithmic, base 2.
    Log2,
    /// Logarithmic, base 10.
    Log10,
    /// Linear, integers only.
    Counting,
}

/// One axis of a chart.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The quantity with its unit.
    pub(crate) label: String,
    spacing: Spacing,
    low: f64,
    high: f64,
}

impl Axis {
    /// Creates an axis that spans `values` with a small margin. Ignores values that are not finite,
    /// or not positive on a logarithmic axis. Without values it spans 0 to 1 (1 to 2 if
    /// logarithmic).
    pub fn spanning(
        label: impl Into<String>,
        spacing: Spacing,
        values: impl Iterator<Item = f64>,
    ) -> Self {
        let usable = values
            .filter(|value| value.is_finite() && (spacing == Spacing::Linear || *value > 0.0));
        let (mut low, mut high) = usable
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if low > high {
            (low, high) = if spacing == Spacing::Linear { (0.0, 1.0) } else { (1.0, 2.0) };
        }
        let (from, to) = (spacing.forward(low), spacing.forward(high));
        // A single value needs a span too: a hundredth of itself, so that its ticks differ.
        let span = if to > from { to - from } else { (0.01 * from.abs()).max(1e-3) };
        let room = 0.06 * span;
        Self { label: label.into(), spacing, low: from - room, high: to + room }
    }

    /// Creates a linear axis that ends exactly at `low` and `high`.
    pub fn tight(label: impl Into<String>, low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { label: label.into(), spacing: Spacing::Linear, low, high }
    }

    /// Creates an axis of the integers `0 .. count`, with ticks at integers only.
    pub fn counting(label: impl Into<String>, count: usize) -> Self {
        let high = count.saturating_sub(1) as f64;
        Self { label: label.into(), spacing: Spacing::Counting, low: -0.25, high: high + 0.25 }
    }

    /// The position of a value: 0 at the low end, 1 at the high end; NaN if it cannot be shown.
    pub(crate) fn position(&self, value: f64) -> f64 {
        (self.spacing.forward(value) - self.low) / (self.high - self.low)
    }

    /// The ticks: values with labels.
    pub(crate) fn ticks(&self) -> Vec<(f64, String)> {
        match self.spacing {
            Spacing::Linear => self.linear_ticks(nice_step((self.high - self.low) / 5.0)),
            Spacing::Counting => {
                self.linear_ticks(nice_step((self.high - self.low) / 12.0).max(1.0))
            }
            Spacing::Log2 => self.log2_ticks(),
            Spacing::Log10 => self.log10_ticks(),
        }
    }

    fn linear_ticks(&self, step: f64) -> Vec<(f64, String)> {
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last)
            .map(|index| {
                let value = index as f64 * step;
                (value, group_digits(&format!("{value:.decimals$}")))
            })
            .collect()
    }

    fn log2_ticks(&self) -> Vec<(f64, String)> {
        let (first, last) = (self.low.ceil() as i32, self.high.floor() as i32);
        let stride = ((last - first) / 12 + 1) as usize;
        (first..=last)
            .step_by(stride)
            .map(|power| {
                let value = f64::from(power).exp2();
                (value, group_digits(&format!("{value}")))
            })
            .collect()
    }

    /// Powers of ten; if fewer than two fit, also 2 and 5 times them.
    fn log10_ticks(&self) -> Vec<(f64, String)> {
        let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
        let inside = |value: &f64| (self.low..=self.high).contains(&value.log10());
        let powers: Vec<f64> =
            (first..=last).map(|power| 10f64.powi(power)).filter(inside).collect();
        let values = if powers.len() >= 2 {
            let stride = powers.len().div_ceil(6);
            powers.into_iter().step_by(stride).collect()
        } else {
            let between = |power: i32| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power));
            (first..=last).flat_map(between).filter(inside).collect::<Vec<_>>()
        };
        values.into_iter().map(|value| (value, significant(value))).collect()
    }
}

impl Spacing {
    fn forward(self, value: f64) -> f64 {
        match self {
            Self::Linear | Self::Counting => value,
            Self::Log2 => value.log2(),
            Self::Log10 => value.log10(),
        }
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor =
        [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * 0.999).unwrap_or(10.0);
    factor * power
}

/// A number with few significant digits.
fn significant(value: f64) -> String {
    if (1e-4..1e5).contains(&value) {
        let decimals = (-value.log10().floor()).max(0.0) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_inside() {
        let axis = Axis::spanning("y", Spacing::Linear, [1.61, 2.05].into_iter());
        let labels: Vec<_> = axis.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["1.6", "1.7", "1.8", "1.9", "2.0"]);
        assert!(axis.position(1.61) > 0.0 && axis.position(2.05) < 1.0);
    }

    #[test]
    fn log2_ticks_are_powers_of_two() {
        let axis = Axis::spanning("x", Spacing::Log2, [16.0, 512.0].into_iter());
        let labels: Vec<_> = axis.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["16", "32", "64", "128", "256", "512"]);
    }

    #[test]
    fn log10_ticks_fill_a_narrow_range() {
        let axis = Axis::spanning("y", Spacing::Log10, [0.002, 0.04].into_iter());
        let labels: Vec<_> = axis.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0.002", "0.005", "0.01", "0.02"]);
        let wide = Axis::spanning("y", Spacing::Log10, [1e-6, 1e2].into_iter());
        assert!((2..=6).contains(&wide.ticks().len()));
    }

    #[test]
    fn degenerate_ranges_still_make_an_axis() {
        for values in [vec![], vec![3.0], vec![f64::NAN], vec![0.0, 0.0]] {
            for spacing in [Spacing::Linear, Spacing::Log2, Spacing::Log10] {
                let axis = Axis::spanning("y", spacing, values.iter().copied());
                assert!(axis.position(3.0).is_finite(), "{values:?} {spacing:?}");
                assert!(axis.ticks().len() < 30, "{values:?} {spacing:?}");
            }
        }
    }
}
