//! Finite-difference checks of `f64` reference gradients.

/// Checks an analytic gradient of a scalar function against central differences at every element of
/// `x`.
///
/// Step 1e-5 on values of order one leaves a truncation error near 1e-10 and a rounding error near
/// 1e-11, so a correct gradient easily agrees to 1e-6 relative to its largest element.
#[track_caller]
pub fn assert_gradient(name: &str, x: &[f64], gradient: &[f64], mut f: impl FnMut(&[f64]) -> f64) {
    const STEP: f64 = 1e-5;
    assert_eq!(x.len(), gradient.len(), "{name}: number of elements");
    let scale = gradient.iter().fold(1e-3, |scale: f64, g| scale.max(g.abs()));
    let mut point = x.to_vec();
    for index in 0..x.len() {
        point[index] = x[index] + STEP;
        let above = f(&point);
        point[index] = x[index] - STEP;
        let below = f(&point);
        point[index] = x[index];
        let numeric = (above - below) / (2.0 * STEP);
        let error = (numeric - gradient[index]).abs() / scale;
        assert!(
            error < 1e-6,
            "{name}: gradient {index} is {}, finite differences give {numeric} (error {error:.2e})",
            gradient[index],
        );
    }
}
