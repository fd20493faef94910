//! `f64` definition of the norm.

/// The L2 norm of all elements.
pub fn norm(elements: &[f64]) -> f64 {
    elements.iter().map(|g| g * g).sum::<f64>().sqrt()
}
