//! Comparison of a fast result with its reference.

/// The allowed error of a value: `atol + rtol * |expected|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Absolute part: the error of a sum whose terms cancel. Scale it with the magnitude of the
    /// terms.
    pub atol: f64,
    /// Relative part.
    pub rtol: f64,
}

impl Tolerance {
    /// `f32` arithmetic on inputs of order one with reductions of up to a few thousand terms:
    /// rounding is 6e-8 relative per operation and errors of a sum grow with the square root of its
    /// length.
    pub const F32: Self = Self { atol: 2e-5, rtol: 2e-5 };

    /// The tolerance with both parts scaled.
    pub fn scaled(self, factor: f64) -> Self {
        Self { atol: self.atol * factor, rtol: self.rtol * factor }
    }
}

/// Panics with the worst element unless every element of `actual` is within `tolerance` of
/// `expected`.
///
/// NaN always fails; an infinity passes only if the reference is the same infinity.
#[track_caller]
pub fn assert_close(name: &str, actual: &[f32], expected: &[f64], tolerance: Tolerance) {
    assert_eq!(actual.len(), expected.len(), "{name}: number of elements");
    let excess = |(a, e): (&f32, &f64)| {
        if f64::from(*a) == *e {
            return 0.0;
        }
        let error = (f64::from(*a) - e).abs() - (tolerance.atol + tolerance.rtol * e.abs());
        if error.is_nan() { f64::INFINITY } else { error }
    };
    let worst =
        actual.iter().zip(expected).map(excess).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((index, excess)) = worst
        && excess > 0.0
    {
        panic!(
            "{name}: element {index} of {} is {}, expected {} (allowed {tolerance:?}, over by \
             {excess:.3e})",
            actual.len(),
            actual[index],
            expected[index],
        );
    }
}

/// The largest absolute difference; infinite if any element is not finite.
pub fn max_error(actual: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(actual.len(), expected.len(), "number of elements");
    let error = |(a, e): (&f32, &f32)| (f64::from(*a) - f64::from(*e)).abs();
    actual
        .iter()
        .zip(expected)
        .map(error)
        .fold(0.0, |worst, error| if error.is_nan() { f64::INFINITY } else { worst.max(error) })
}
