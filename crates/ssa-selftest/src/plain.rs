//! Arithmetic of a plain computation in `bf16`.

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
